/**
 * An exception in any layer ends only its own request; other requests go on. Real sockets, every
 * protocol.
 */
import { once } from "node:events";
import { request as httpRequest, type ServerResponse } from "node:http";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  connect as http2Connect,
} from "node:http2";
import { connect as dial } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { ServerReflection } from "#gen/grpc/reflection/v1/reflection_pb.js";
import { sortStrangers } from "../../../../src/server/access/strangers.ts";
import { createDeviceStreams } from "../../../../src/server/device/stream/grpc-stream.ts";
import { type Page, withPage } from "../../../../src/server/http/page.ts";
import { createRpcHandler } from "../../../../src/server/http/port/adapter.ts";
import { createLastLine } from "../../../../src/server/http/port/last-line.ts";
import { openPort, type PortOptions } from "../../../../src/server/http/port/port.ts";
import { withProbes } from "../../../../src/server/http/probes.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const log = createLogger({ level: "silent", name: "test" });

async function open(options: Partial<PortOptions>) {
  const counted: string[] = [];
  const lastLine = createLastLine({ log, onUncaught: (origin) => void counted.push(origin) });
  const port = await openPort({
    ...{ host: "127.0.0.1", port: 0, log, lastLine },
    ...options,
    handler: (request, response) => {
      if (request.url === "/good") {
        response.end("good");
        return;
      }
      return options.handler?.(request, response);
    },
  });
  onTestFinished(() => port.close(0));
  return { ...port, counted };
}

function session(url: string): ClientHttp2Session {
  const made = http2Connect(url);
  made.on("error", () => {});
  onTestFinished(() => made.destroy());
  return made;
}

/** The end of a stream: the status of its answer, if any, and the code of its reset. */
async function outcome(stream: ClientHttp2Stream): Promise<{ status: number; code: number }> {
  let status = 0;
  stream.on("response", (headers) => {
    status = Number(headers[":status"]);
  });
  stream.on("error", () => {});
  stream.resume();
  await once(stream, "close").catch(() => {});
  return { status, code: stream.rstCode };
}

const post = (to: ClientHttp2Session, path: string, more: Record<string, string> = {}) =>
  to.request({ ":method": "POST", ":path": path, ...more });

/** Another request on the same connection, and a request on a new connection, are served. */
async function othersGoOn(port: { url: string }, same?: ClientHttp2Session): Promise<void> {
  expect(await (await fetch(`${port.url}/good`)).text()).toBe("good");
  if (same) expect(await outcome(same.request({ ":path": "/good" }))).toMatchObject({ status: 200, code: 0 });
}

async function status1(url: string, body?: string): Promise<number | string> {
  const asked = httpRequest(url, { method: "POST", agent: false });
  asked.end(body);
  return await once(asked, "response").then(
    ([answer]) => {
      answer.resume();
      return answer.statusCode as number;
    },
    (error) => error.code as string,
  );
}

const boom = (where: string) => {
  throw new Error(`boom in ${where}`);
};

test.each(["at once", "later"])("a handler that throws %s: 500 on both protocols", async (when) => {
  const port = await open({
    handler: () => (when === "later" ? Promise.reject(new Error("boom")) : boom("it")),
  });
  const over2 = session(port.url);
  expect(await status1(`${port.url}/x`)).toBe(500);
  expect(await outcome(post(over2, "/x").end())).toMatchObject({ status: 500 });
  expect(port.counted).toEqual(["handler", "handler"]);
  await othersGoOn(port, over2);
});

test("a handler that throws after its headers left: the answer is cut, and not mistaken for a whole one", async () => {
  const port = await open({
    handler: async (_request, response) => {
      (response as ServerResponse).write("half");
      await new Promise((resolve) => setTimeout(resolve, 20));
      boom("it");
    },
  });
  const over2 = session(port.url);
  const cut = await fetch(`${port.url}/x`);
  await expect(cut.text()).rejects.toThrow();
  expect(await outcome(post(over2, "/x").end())).toEqual({
    status: 200,
    code: constants.NGHTTP2_INTERNAL_ERROR,
  });
  await othersGoOn(port, over2);
});

test.each(["data", "end", "close"])("a listener for %s of a request that throws", async (event) => {
  const port = await open({
    handler: (request, response) => {
      request.on(event, () => boom(event));
      request.resume();
      if (event === "close") request.on("end", () => response.end("x"));
    },
  });
  const over2 = session(port.url);
  await status1(`${port.url}/x`, "body");
  await outcome(post(over2, "/x").end("body"));
  await vi.waitFor(() => expect(port.counted).toEqual(["callback", "callback"]));
  await othersGoOn(port, over2);
});

test("a listener for the end of a response that throws", async () => {
  const port = await open({
    handler: (_request, response) => {
      response.on("finish", () => boom("finish"));
      response.end("x");
    },
  });
  const over2 = session(port.url);
  expect(await status1(`${port.url}/x`)).toBe(200);
  expect(await outcome(post(over2, "/x").end())).toMatchObject({ status: 200 });
  await vi.waitFor(() => expect(port.counted).toEqual(["callback", "callback"]));
  await othersGoOn(port, over2);
});

test.each(["at once", "later", "in data", "in wantTrailers"])(
  "a taken stream that fails %s",
  async (when) => {
    const port = await open({
      takeStream(stream, headers) {
        if (headers[":path"] === "/good") return undefined;
        if (when === "at once") boom("take");
        if (when === "later") return Promise.reject(new Error("boom"));
        stream.on("data", () => when === "in data" && boom("data"));
        stream.on("wantTrailers", () => {
          stream.sendTrailers({});
          if (when === "in wantTrailers") boom("wantTrailers");
        });
        stream.respond({ ":status": 200 }, { waitForTrailers: true });
        if (when === "in wantTrailers") stream.end("x");
        return Promise.resolve();
      },
    });
    const over2 = session(port.url);
    const ended = await outcome(post(over2, "/x").end("body"));
    if (when !== "in wantTrailers") {
      expect(ended.status === 500 || ended.code === constants.NGHTTP2_INTERNAL_ERROR).toBe(true);
    }
    expect(port.counted).toHaveLength(1);
    await othersGoOn(port, over2);
  },
);

test("a probe, the page and the metrics that fail answer 500", async () => {
  const failing = () => Promise.reject(new Error("boom"));
  const probes = withProbes({
    rpc: () => boom("rpc"),
    health: { setDatabase: () => boom("health") } as never,
    db: {} as never,
    isBusUp: () => boom("bus"),
    metrics: { text: failing, contentType: "text/plain" } as never,
    metricsToken: undefined,
  });
  const page = { get: (path: string) => (path === "/page" ? { bodies: {} } : undefined) } as unknown as Page;
  const port = await open({ handler: withPage(probes, page) });
  for (const path of ["/readyz", "/metrics", "/rpc"])
    expect(await status1(`${port.url}${path}`), path).toBe(500);
  expect((await fetch(`${port.url}/page`)).status).toBe(500);
  expect(port.counted).toHaveLength(4);
  await othersGoOn(port);
});

test("what sorts strangers, the adapter's values of a call, a service and reflection that fail end the call", async () => {
  const guard = { authenticate: () => boom("guard"), isUnknown: () => boom("guard") } as never;
  const strangers = sortStrangers({
    ...{ guard, limits: {} as never, trustedProxies: 0, isStream: () => false },
    known: () => boom("known"),
    stranger: () => boom("stranger"),
  });
  const adapter = createRpcHandler({
    contextValues: (request) => (request.url?.includes("values") ? boom("values") : ({} as never)),
    routes: (router) => {
      router.service(ServerReflection, { serverReflectionInfo: () => boom("service") });
    },
  });
  const port = await open({
    handler: (request, response) => (request.url === "/strangers" ? strangers : adapter)(request, response),
  });
  expect(await status1(`${port.url}/strangers`)).toBe(500);
  const path = `/${ServerReflection.typeName}/ServerReflectionInfo`;
  const headers = { "content-type": "application/grpc" };
  const over2 = session(port.url);
  expect(await outcome(post(over2, `${path}?values`, headers).end())).toMatchObject({ status: 500 });
  // An exception in a service is answered with a gRPC status.
  expect(await outcome(post(over2, path, headers).end())).toMatchObject({ status: 200, code: 0 });
  expect(port.counted).toEqual(["handler", "handler"]);
  await othersGoOn(port, over2);
});

test("a device stream whose session throws, at its beginning or at a message, is ended with a status", async () => {
  for (const at of ["begin", "receive", "failed"]) {
    const stream = createDeviceStreams({
      guard: {
        isUnknown: () => false,
        authenticate: async () => ({}),
        admit: async () => ({ tokenId: "t", orgId: "o" }),
      } as never,
      limits: { requireRequest() {}, requireAttempt() {}, countFailure() {} } as never,
      trustedProxies: 0,
      log,
      messageBytesMax: 1_000,
      hub: {
        begin: () => {
          if (at === "begin") boom("begin");
          return {
            state: "open",
            receive: () => boom("receive"),
            failed: () => boom("failed"),
            close: () => boom("close"),
            left: () => boom("left"),
          };
        },
        calm: () => undefined,
      } as never,
    });
    const port = await open({ takeStream: stream.take });
    const over2 = session(port.url);
    const call = post(over2, "/pinion.v1.DeviceService/Connect", { "content-type": "application/grpc" });
    call.end(Buffer.from([0, 0, 0, 0, 0]));
    await outcome(call);
    if (at !== "begin") expect(port.counted.length).toBeGreaterThan(0);
    await othersGoOn(port, over2);
  }
});

test("a reader of sessions, CONNECT, an upgrade and nonsense do no harm", async () => {
  const port = await open({ handler: () => boom("upgrade") });
  for (const text of [
    "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "\u0000\u0001\u0002",
    "GET / HTTP/9.9\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u0000\u0000\u0001\u00ff",
  ]) {
    const socket = dial(port.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.end(text);
    socket.resume();
    await once(socket, "close");
  }
  await othersGoOn(port);
});
