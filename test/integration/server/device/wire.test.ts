/** One port, all protocols: the same calls over every supported protocol. */
import { once } from "node:events";
import { connect as tlsConnect } from "node:tls";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { expect, onTestFinished, test } from "vitest";
import { type ConnectRequestSchema, DeviceService, Os } from "#gen/pinion/v1/device_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { newId } from "../../../../src/values/ids.ts";
import { hasOpenssl, makeCertificate } from "../../../support/certificate.ts";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice } from "../../../support/device.ts";
import { startTestReplica } from "../../../support/server.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

type Way = { url: string; token: string; nodeOptions?: object; interceptors?: Interceptor[] };
type Wire = (way: Way) => Transport;

const bearer =
  (token: string): Interceptor =>
  (next) =>
  (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };

function optionsOf({ url, token, nodeOptions }: Way) {
  return { baseUrl: url, interceptors: [bearer(token)], nodeOptions: nodeOptions ?? {} };
}

const http1: Record<string, Wire> = {
  "Connect JSON over HTTP/1.1": (way) =>
    createConnectTransport({ ...optionsOf(way), httpVersion: "1.1", useBinaryFormat: false }),
  "Connect binary over HTTP/1.1": (way) =>
    createConnectTransport({ ...optionsOf(way), httpVersion: "1.1", useBinaryFormat: true }),
  "Connect GET over HTTP/1.1": (way) =>
    createConnectTransport({ ...optionsOf(way), httpVersion: "1.1", useHttpGet: true }),
  "gRPC-Web over HTTP/1.1": (way) => createGrpcWebTransport({ ...optionsOf(way), httpVersion: "1.1" }),
};
const http2: Record<string, Wire> = {
  "Connect JSON over HTTP/2": (way) =>
    createConnectTransport({ ...optionsOf(way), httpVersion: "2", useBinaryFormat: false }),
  "Connect binary over HTTP/2": (way) =>
    createConnectTransport({ ...optionsOf(way), httpVersion: "2", useBinaryFormat: true }),
  "gRPC over HTTP/2": (way) => createGrpcTransport(optionsOf(way)),
  "gRPC-Web over HTTP/2": (way) => createGrpcWebTransport({ ...optionsOf(way), httpVersion: "2" }),
  // Not for devices: a compressor's memory for each held stream is not worth the saving.
  "gRPC with gzip over HTTP/2": (way) =>
    createGrpcTransport({
      ...optionsOf(way),
      sendCompression: compressionGzip,
      acceptCompression: [compressionGzip],
      compressMinBytes: 1,
    }),
};
const wires = Object.entries({ ...http1, ...http2 });

/**
 * The requirements for every protocol: answer a call, store values unchanged, and refuse with code
 * and field.
 */
async function expectUnary(transport: Transport): Promise<void> {
  const runs = createClient(RunService, transport);
  expect((await runs.listRuns({ pageSize: 1 })).$typeName).toBe("pinion.v1.ListRunsResponse");
  const watchers = createClient(WatcherService, transport);
  const spec = {
    name: "Grüße an die Welt 🌍",
    prompt: "x".repeat(100_000),
    timeout: { seconds: 90n, nanos: 0 },
    extractionSchema: { type: "object", required: ["a"] },
  };
  const { watcher } = await watchers.createWatcher({ slug: `wire-${newId()}`, spec });
  const { watcher: read } = await watchers.getWatcher({ watcherId: watcher!.id });
  expect(read!.spec).toMatchObject(spec);
  const refused = await runs.getRun({ runId: "seven" }).catch((error: unknown) => error as ConnectError);
  expect(refused).toMatchObject({ code: Code.InvalidArgument, rawMessage: "run_id: must be a valid UUID" });
  const missing = runs.getRun({ runId: newId() });
  await expect(missing).rejects.toMatchObject({ code: Code.NotFound });
}

test.each(wires)("%s carries calls, texts, large values and errors", async (_, wire) => {
  const { url, token } = replicas.here;
  await expectUnary(wire({ url, token }));
});

test.each(wires)("%s carries a server's stream as it comes", async (_, wire) => {
  const { url, token, clients } = replicas.here;
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const kinds: string[] = [];
  const events = createClient(EventService, wire({ url, token }));
  const label = newId();
  for await (const { update } of events.watchEvents({}, { signal: stop.signal })) {
    // The cursor comes first and shows that the stream is open.
    if (update.case === "cursor" && kinds.length === 0) await enrolDevice(clients, label);
    if (update.case === "event") kinds.push(update.value.kind);
    if (kinds.includes("device.enrolled")) break;
  }
  expect(kinds).toContain("device.enrolled");
});

const compressed = "gRPC with gzip over HTTP/2";

test.each(Object.entries(http2).filter(([name]) => name !== compressed))(
  "%s carries the device's stream",
  async (_, wire) => {
    const { url, clients } = replicas.here;
    const device = await enrolDevice(clients);
    await expectSession(wire({ url, token: device.token }), device.installId);
  },
);

test("a device that compresses is told that its stream takes no compression", async () => {
  const { url, clients } = replicas.here;
  const device = await enrolDevice(clients);
  const transport = http2[compressed]!({ url, token: device.token });
  await expect(expectSession(transport, device.installId)).rejects.toMatchObject({
    code: Code.Unimplemented,
    rawMessage: expect.stringContaining("gzip"),
  });
});

/** Hello and heartbeat, answered while the stream is open. */
async function expectSession(transport: Transport, installId: string): Promise<void> {
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const answered = Promise.withResolvers<void>();
  async function* messages(): AsyncGenerator<MessageInitShape<typeof ConnectRequestSchema>> {
    yield {
      message: { case: "hello", value: { installId, os: Os.LINUX, maxConcurrency: 1 } },
    };
    await answered.promise;
    yield { message: { case: "heartbeat", value: { sequence: 7n } } };
  }
  const cases: (string | undefined)[] = [];
  const stream = createClient(DeviceService, transport).connect(messages(), { signal: stop.signal });
  for await (const { message } of stream) {
    cases.push(message.case);
    if (message.case === "welcome") answered.resolve();
    if (message.case === "heartbeatAck") expect(message.value.sequence).toBe(7n);
  }
  expect(cases).toEqual(["welcome", "heartbeatAck"]);
}

const tls = hasOpenssl ? test : test.skip;

tls("with a certificate configured every wire works within TLS (needs openssl)", async () => {
  const { certFile, keyFile, cert } = makeCertificate();
  const replica = await startTestReplica(database.url, {
    PINION_TLS_CERT_FILE: certFile,
    PINION_TLS_KEY_FILE: keyFile,
  });
  const { url, token } = replica;
  expect(url).toMatch(/^https:/);
  for (const [, wire] of wires) await expectUnary(wire({ url, token, nodeOptions: { ca: cert } }));
  const device = await enrolDevice(replicas.here.clients);
  await expectSession(
    http2["gRPC over HTTP/2"]!({ url, token: device.token, nodeOptions: { ca: cert } }),
    device.installId,
  );
  // Clients that do not trust the certificate, or use no TLS, get no answer.
  const list = (way: Way) => createClient(RunService, http2["gRPC over HTTP/2"]!(way)).listRuns({});
  await expect(list({ url, token })).rejects.toThrow(/self-signed/);
  await expect(list({ url: url.replace("https", "http"), token })).rejects.toThrow(ConnectError);
});

tls(
  "with authorities for clients configured only who shows their certificate is served (needs openssl)",
  async () => {
    const [server, client, stranger] = [makeCertificate(), makeCertificate(), makeCertificate()];
    const { url, token } = await startTestReplica(database.url, {
      PINION_TLS_CERT_FILE: server.certFile,
      PINION_TLS_KEY_FILE: server.keyFile,
      PINION_TLS_CLIENT_CA_FILE: client.certFile,
    });
    const list = (shown: object) =>
      createClient(
        RunService,
        createConnectTransport({
          ...optionsOf({ url, token, nodeOptions: { ca: server.cert, ...shown } }),
          httpVersion: "1.1",
        }),
      ).listRuns({});
    await list({ cert: client.cert, key: client.key });
    await expect(list({})).rejects.toThrow(ConnectError);
    await expect(list({ cert: stranger.cert, key: stranger.key })).rejects.toThrow(ConnectError);
  },
);

tls("old versions of TLS are refused (needs openssl)", async () => {
  const { certFile, keyFile, cert } = makeCertificate();
  const { port } = await startTestReplica(database.url, {
    PINION_TLS_CERT_FILE: certFile,
    PINION_TLS_KEY_FILE: keyFile,
  });
  const options = { port, host: "127.0.0.1", ca: cert, servername: "localhost" };
  const old = tlsConnect({
    ...options,
    maxVersion: "TLSv1.1",
    minVersion: "TLSv1.1",
    ciphers: "ALL:@SECLEVEL=0",
  });
  const [error] = await once(old, "error");
  expect(String(error)).toMatch(/version|EPROTO|ECONNRESET/i);
  const current = tlsConnect({ ...options, ALPNProtocols: ["h2"] });
  onTestFinished(() => void current.destroy());
  await once(current, "secureConnect");
  expect(current.alpnProtocol).toBe("h2");
});

test("a Connect GET whose message is no base64 is the caller's mistake", async () => {
  const { url, token } = replicas.here;
  const rpc = `${url}/${RunService.typeName}/ListRuns?connect=v1&encoding=proto&base64=1`;
  for (const message of ["%25", "_", "****"]) {
    const response = await fetch(`${rpc}&message=${message}`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect([response.status, (await response.json()) as object]).toMatchObject([
      400,
      { code: "invalid_argument" },
    ]);
  }
  const empty = await fetch(`${rpc}&message=`, { headers: { authorization: `Bearer ${token}` } });
  expect(empty.status).toBe(200);
});
