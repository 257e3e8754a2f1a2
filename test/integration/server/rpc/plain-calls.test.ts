/**
 * Unary calls over gRPC and Connect are answered alike on the bare stream (a known token) and by
 * Connect's handler (any other): the same bytes of each request are sent with both tokens.
 */
import { once } from "node:events";
import { constants, connect as http2Connect, type IncomingHttpHeaders } from "node:http2";
import { gunzipSync, gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  createContextValues,
  type Interceptor,
} from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { GetRunRequestSchema, RunService } from "#gen/pinion/v1/run_pb.js";
import type { Principal } from "../../../../src/server/access/principal.ts";
import { createRpcHandler } from "../../../../src/server/http/port/adapter.ts";
import { openPort } from "../../../../src/server/http/port/port.ts";
import { createPlainCalls } from "../../../../src/server/rpc/plain-calls.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const readMaxBytes = 10_000;
const known = "Bearer known";
const other = "Bearer other";
const path = `/${RunService.typeName}/GetRun`;

/** What the handler does, by the run that is asked for. */
function routes(router: ConnectRouter): void {
  router.service(RunService, {
    async getRun({ runId }, context) {
      context.responseHeader.set("x-shown", context.requestHeader.get("x-asked") ?? "nothing");
      context.responseTrailer.set("x-timeout", context.timeoutMs() === undefined ? "none" : "some");
      switch (runId) {
        case "refused":
          throw new ConnectError("no such rûn", Code.NotFound, { "x-meta": "data" }, [
            { desc: GetRunRequestSchema, value: { runId: "detail" } },
          ]);
        case "broken":
          throw new Error("a defect");
        case "refused at length":
          throw new ConnectError("no ".repeat(2_000), Code.InvalidArgument);
        case "slow":
          await once(context.signal, "abort");
          throw context.signal.reason;
        default:
          return { run: { id: runId } };
      }
    },
  });
}

/** A port; `calls` counts the requests that came to Connect's handler, `begun` those to the rpc. */
async function openBoth() {
  const seen = { byConnect: 0, begun: 0, aborted: [] as unknown[] };
  const interceptor: Interceptor = (next) => (request) => {
    seen.begun++;
    request.signal.addEventListener("abort", () => seen.aborted.push(request.signal.reason));
    return next(request);
  };
  const shutdown = new AbortController();
  const common = {
    ...{ routes, readMaxBytes, shutdownSignal: shutdown.signal, interceptors: [interceptor] },
    contextValues: () => createContextValues(),
  };
  const handler = createRpcHandler(common);
  const principal = { tokenId: "known" } as Principal;
  const port = await openPort({
    host: "127.0.0.1",
    port: 0,
    log: createLogger({ level: "silent", name: "test" }),
    handler(request, response) {
      seen.byConnect++;
      return handler(request, response);
    },
    takeStream: createPlainCalls({
      ...common,
      guard: { findKnown: (header) => (header === known ? principal : undefined) },
    }),
  });
  const session = http2Connect(port.url);
  onTestFinished(async () => {
    session.destroy();
    await port.close(0);
  });
  return { session, seen, shutdown };
}

type Both = Awaited<ReturnType<typeof openBoth>>;
type Asked = { headers?: Record<string, string>; bytes: Buffer };

function begin({ session }: Both, authorization: string, { headers, bytes }: Asked) {
  const stream = session.request({
    ...{ ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" },
    ...{ authorization, ...headers },
  });
  stream.on("error", () => {});
  stream.end(bytes);
  return stream;
}

async function call(both: Both, authorization: string, asked: Asked) {
  const stream = begin(both, authorization, asked);
  let trailers: IncomingHttpHeaders = {};
  stream.on("trailers", (received) => {
    trailers = received;
  });
  const [{ date: _, ...headers }] = (await once(stream, "response")) as [IncomingHttpHeaders];
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return { headers: { ...headers }, trailers: { ...trailers }, body: Buffer.concat(chunks) };
}

function frame(payload: Uint8Array, options: { flags?: number; length?: number } = {}): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(options.flags ?? 0);
  head.writeUInt32BE(options.length ?? payload.length, 1);
  return Buffer.concat([head, payload]);
}

const getRun = (runId: string) => toBinary(GetRunRequestSchema, create(GetRunRequestSchema, { runId }));
const plain = frame(getRun("one"));
const accepts = { "grpc-accept-encoding": "gzip,br" };

const requests: [string, Asked][] = [
  ["a call", { bytes: plain }],
  ["headers, and a trailer", { bytes: plain, headers: { "x-asked": "something" } }],
  ["a deadline", { bytes: plain, headers: { "grpc-timeout": "5S" } }],
  ["a deadline that passes", { bytes: frame(getRun("slow")), headers: { "grpc-timeout": "30m" } }],
  ["a deadline that cannot be read", { bytes: plain, headers: { "grpc-timeout": "soon" } }],
  ["an error with details and metadata", { bytes: frame(getRun("refused")) }],
  ["a defect", { bytes: frame(getRun("broken")) }],
  ["a short answer to a caller that takes compressed ones", { bytes: plain, headers: accepts }],
  ["a long answer", { bytes: frame(getRun("x".repeat(5_000))) }],
  ["a long answer, compressed", { bytes: frame(getRun("x".repeat(5_000))), headers: accepts }],
  ["a compression that nobody has", { bytes: plain, headers: { "grpc-accept-encoding": "snappy" } }],
  ["an empty message", { bytes: frame(new Uint8Array()) }],
  ["no message", { bytes: Buffer.alloc(0) }],
  ["two messages", { bytes: Buffer.concat([plain, plain]) }],
  ["a part of a message", { bytes: plain.subarray(0, 7) }],
  ["a message and a part of one", { bytes: Buffer.concat([plain, plain.subarray(0, 7)]) }],
  ["bytes that are no protobuf", { bytes: frame(Buffer.from([0xff, 0xff, 0xff])) }],
  ["an unannounced compression", { bytes: frame(gzipSync(getRun("one")), { flags: 1 }) }],
  ["a message that is too long", { bytes: frame(Buffer.alloc(readMaxBytes + 1)) }],
  ["a length that is too long, and nothing else", { bytes: frame(Buffer.alloc(1), { length: 2 ** 31 }) }],
];

/** The same, over Connect, where the body is the message. */
const overConnect = (bytes: Buffer | Uint8Array, headers: Record<string, string> = {}): Asked => ({
  bytes: Buffer.from(bytes),
  headers: { "content-type": "application/proto", "connect-protocol-version": "1", ...headers },
});
const takesCompressed = { "accept-encoding": "gzip, br" };

const connectRequests: [string, Asked][] = [
  ["a call", overConnect(getRun("one"))],
  ["a length that is told", overConnect(getRun("one"), { "content-length": String(getRun("one").length) })],
  ["headers, and a trailer", overConnect(getRun("one"), { "x-asked": "something" })],
  ["a deadline", overConnect(getRun("one"), { "connect-timeout-ms": "5000" })],
  ["a deadline that passes", overConnect(getRun("slow"), { "connect-timeout-ms": "30" })],
  ["a deadline that cannot be read", overConnect(getRun("one"), { "connect-timeout-ms": "soon" })],
  ["an error with details and metadata", overConnect(getRun("refused"))],
  ["a defect", overConnect(getRun("broken"))],
  ["a short answer to a caller that takes compressed ones", overConnect(getRun("one"), takesCompressed)],
  ["a long answer", overConnect(getRun("x".repeat(5_000)))],
  ["a long answer, compressed", overConnect(getRun("x".repeat(5_000)), takesCompressed)],
  ["a long error, compressed", overConnect(getRun("refused at length"), takesCompressed)],
  ["a compression that nobody has", overConnect(getRun("one"), { "accept-encoding": "snappy" })],
  ["no body", overConnect(Buffer.alloc(0))],
  ["bytes that are no protobuf", overConnect(Buffer.from([0xff, 0xff, 0xff]))],
  ["an unannounced compression", overConnect(gzipSync(getRun("one")))],
  ["a message that is too long", overConnect(Buffer.alloc(readMaxBytes + 1))],
  [
    "a message that is too long, and says so",
    overConnect(Buffer.alloc(readMaxBytes + 1), { "content-length": String(readMaxBytes + 1) }),
  ],
];

test.each([
  ...requests.map(([what, asked]) => [`${what} over gRPC`, asked] as const),
  ...connectRequests.map(([what, asked]) => [`${what} over Connect`, asked] as const),
])("%s is answered alike", async (_, asked) => {
  const both = await openBoth();
  const bare = await call(both, known, asked);
  const wasTaken = both.seen.byConnect === 0;
  const connect = await call(both, other, asked);
  // A deadline that cannot be read is the only one of them that is left to Connect's handler.
  const { "grpc-timeout": grpc, "connect-timeout-ms": ms } = asked.headers ?? {};
  expect(wasTaken).toBe(grpc !== "soon" && ms !== "soon");
  expect(both.seen.byConnect).toBe(wasTaken ? 1 : 2);
  expect(wordless(bare)).toEqual(wordless(connect));
  expect(sizeless(bare.body)).toEqual(sizeless(connect.body));
});

/** Without the words about a message that is too long. */
function sizeless(body: Buffer): string {
  return body.toString("latin1").replace(/message size [^"]*/, "");
}

/** Without the words about bytes that cannot be read, which differ; their codes do not. */
function wordless({ headers, trailers }: Awaited<ReturnType<typeof call>>) {
  const { "grpc-message": words, ...rest } = trailers;
  const isOfBytes = /protocol|size|compress/.test(String(words));
  // Its length is the words' length.
  if (String(headers[":status"]) === "429") delete headers["content-length"];
  return { headers, trailers: { ...rest, words: isOfBytes ? "" : words } };
}

test.each([
  [
    "a compressed message",
    { bytes: frame(gzipSync(getRun("one")), { flags: 1 }), headers: { "grpc-encoding": "gzip" } },
  ],
  [
    "JSON",
    { bytes: frame(Buffer.from('{"runId":"one"}')), headers: { "content-type": "application/grpc+json" } },
  ],
  ["JSON over Connect", overConnect(Buffer.from('{"runId":"one"}'), { "content-type": "application/json" })],
  ["a compressed message over Connect", overConnect(gzipSync(getRun("one")), { "content-encoding": "gzip" })],
  ["another method", { bytes: plain, headers: { ":method": "PUT" } }],
  ["a path that is no rpc", { bytes: plain, headers: { ":path": "/pinion.v1.RunService/Nothing" } }],
])("%s is left to Connect's handler", async (_, asked: Asked) => {
  const both = await openBoth();
  await call(both, known, asked);
  expect(both.seen.byConnect).toBe(1);
});

test.each([
  ["gRPC", { bytes: plain, headers: { "grpc-timeout": "99999999S" } }],
  ["Connect", overConnect(getRun("one"), { "connect-timeout-ms": "9999999999" })],
])(
  "a deadline over %s that no timer can wait for is none: the call does not end at once",
  async (_, asked: Asked) => {
    const both = await openBoth();
    for (const authorization of [known, other]) {
      const { headers, trailers } = await call(both, authorization, asked);
      expect(trailers["x-timeout"] ?? headers["trailer-x-timeout"]).toBe("none");
    }
  },
);

test("a message that comes in small parts is read, and a compressed answer can be", async () => {
  const both = await openBoth();
  const parts = both.session.request({
    ...{ ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" },
    ...{ authorization: known, ...accepts },
  });
  const bytes = frame(getRun("y".repeat(3_000)));
  for (let at = 0; at < bytes.length; at += 100) {
    parts.write(bytes.subarray(at, at + 100));
    await new Promise((resolve) => setImmediate(resolve));
  }
  parts.end();
  const chunks: Buffer[] = [];
  for await (const chunk of parts) chunks.push(chunk);
  expect(gunzipSync(Buffer.concat(chunks).subarray(5)).toString()).toContain("y".repeat(3_000));
  expect(both.seen.byConnect).toBe(0);
});

test("a caller that leaves ends its call", async () => {
  const both = await openBoth();
  const stream = begin(both, known, { bytes: frame(getRun("slow")) });
  await expect.poll(() => both.seen.begun).toBe(1);
  stream.close(constants.NGHTTP2_CANCEL);
  await expect.poll(() => both.seen.aborted).toMatchObject([{ code: Code.Canceled }]);
});

test("calls that were answered end for their listeners with one reason: an error costs more than the rest", async () => {
  const both = await openBoth();
  for (let count = 0; count < 3; count++) await call(both, known, { bytes: plain });
  const { aborted } = both.seen;
  expect(aborted).toHaveLength(3);
  expect(aborted[0]).toMatchObject({ code: Code.Canceled });
  expect(new Set(aborted).size).toBe(1);
});

test("a caller that resets its stream right after opening it has no call", async () => {
  const both = await openBoth();
  for (let count = 0; count < 20; count++) {
    begin(both, known, { bytes: plain }).close(constants.NGHTTP2_CANCEL);
  }
  await call(both, known, { bytes: plain });
  expect(both.seen.begun).toBe(1);
});

test("a server that stops tells the calls under way", async () => {
  const both = await openBoth();
  const answer = call(both, known, { bytes: frame(getRun("slow")) });
  await expect.poll(() => both.seen.begun).toBe(1);
  both.shutdown.abort(new ConnectError("stopping", Code.Unavailable));
  expect((await answer).trailers["grpc-status"]).toBe(String(Code.Unavailable));
});
