/** Mistakes of a peer: the peer gets an error, nothing is lost, and the server goes on. */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { request as http1Request } from "node:http";
import { connect as http2Connect } from "node:http2";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { status as grpcStatus } from "@grpc/grpc-js";
import { createClients } from "@pinion/client";
import { afterEach, expect, onTestFinished, test } from "vitest";
import {
  type Assignment,
  CompletionSchema,
  CompletionVerdict,
  ConnectRequestSchema,
  HeldVerdict,
  Os,
  Outcome,
  RejectReason,
} from "#gen/pinion/v1/device_pb.js";
import { OutputStream, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { newToken } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, dial, enrolDevice, type Identity } from "../../../support/device.ts";
import { deviceStreamsOfFile, startTestReplica } from "../../../support/server.ts";
import { getRun, heldOf, startWork, takeOn, untilStatus, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

/**
 * After each of these tests the same server still answers a valid call and serves a well-behaved
 * device.
 */
afterEach(async () => {
  const { clients, url } = replicas.here;
  await clients.runs.listRuns({ pageSize: 1 });
  const stream = await connect(url, await enrolDevice(clients));
  await stream.beat();
  stream.cancel();
});

const tenMegabytes = 10 * 1024 * 1024;

/** A Connect call as JSON over HTTP/1.1, like a call with curl. */
async function callJson(method: string, options: { token?: string; body?: string } = {}) {
  const response = await fetch(`${replicas.here.url}/pinion.v1.${method}`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
    },
    body: options.body ?? "{}",
  });
  const body = (await response.json()) as { code?: string; message?: string };
  return { status: response.status, code: body.code, message: body.message };
}

/** A gRPC call as raw bytes over HTTP/2. */
async function callRaw(method: string, options: { token: string; bytes: Buffer; contentType?: string }) {
  const session = http2Connect(replicas.here.url);
  session.on("error", () => {});
  onTestFinished(() => session.destroy());
  const stream = session.request({
    ":method": "POST",
    ":path": `/pinion.v1.${method}`,
    "content-type": options.contentType ?? "application/grpc",
    te: "trailers",
    authorization: `Bearer ${options.token}`,
  });
  stream.on("error", () => {});
  let trailers: Record<string, unknown> = {};
  stream.on("trailers", (received) => {
    trailers = received;
  });
  stream.end(options.bytes);
  const [headers] = await once(stream, "response");
  for await (const _ of stream);
  const all = { ...headers, ...trailers } as Record<string, string>;
  return {
    httpStatus: Number(all[":status"]),
    code: all["grpc-status"] === undefined ? undefined : (Number(all["grpc-status"]) as grpcStatus),
    message: decodeURIComponent(all["grpc-message"] ?? ""),
  };
}

/** A gRPC frame: flags, the claimed length, and the payload. */
function frame(payload: Uint8Array, options: { flags?: number; length?: number } = {}): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(options.flags ?? 0);
  head.writeUInt32BE(options.length ?? payload.length, 1);
  return Buffer.concat([head, payload]);
}

/** A device with work under way. */
async function beginWork() {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  await untilStatus(clients, assignment, RunStatus.RUNNING);
  return { clients, url, device, stream, assignment };
}

/** The device comes back, still has its attempt, and completes it. */
async function expectNothingLost(device: Identity, assignment: Assignment): Promise<void> {
  const back = await connect(replicas.here.url, device, { held: [heldOf(assignment)] });
  expect(back.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.CONTINUE);
  expect((await back.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
}

test.each([
  ["no token", undefined, "a token is needed: authorization: Bearer pin_…"],
  ["a malformed token", "pin_pat_short", "the token is malformed; it may have been cut or mistyped"],
  ["a token with a typo", `${newToken("pat").slice(0, -1)}x`, "the token is malformed; it may have been cut"],
  ["an unknown token", newToken("dev"), "the token is unknown, revoked or expired"],
])("%s is refused, by unary calls and by the stream", async (_, token, message) => {
  for (const method of ["RunService/ListRuns", "DeviceService/CompleteRun"]) {
    const answer = await callJson(method, token === undefined ? {} : { token });
    expect(answer).toMatchObject({ status: 401, code: "unauthenticated" });
    expect(answer.message).toContain(message);
  }
  const stream = dial(replicas.here.url, token ?? "");
  stream.send({ case: "heartbeat", value: { sequence: 1n } });
  const ended = await stream.ended;
  expect(ended.code).toBe(grpcStatus.UNAUTHENTICATED);
  expect(ended.details).toContain(message);
});

test("a device's token opens no door of the operators, and an operator's none of the devices", async () => {
  const { token } = await enrolDevice(replicas.here.clients);
  for (const method of [
    "RunService/ListRuns",
    "WatcherService/CreateWatcher",
    "FleetService/CreateJoinCode",
  ]) {
    expect(await callJson(method, { token })).toMatchObject({ status: 403, code: "permission_denied" });
  }
  const owner = replicas.here.token;
  for (const method of ["DeviceService/ListMyWatchers", "DeviceService/CompleteRun"]) {
    expect(await callJson(method, { token: owner })).toMatchObject({
      status: 403,
      message: expect.stringMatching(/^only a device's own token .*enrol the device/),
    });
  }
  const stream = dial(replicas.here.url, owner);
  stream.send({ case: "heartbeat", value: { sequence: 1n } });
  expect((await stream.ended).code).toBe(grpcStatus.PERMISSION_DENIED);
});

test("another device's run is out of reach, on the stream and by the unary call", async () => {
  const { clients, url, stream, assignment } = await beginWork();
  const thief = await enrolDevice(clients);
  const thiefs = await connect(url, thief);
  const name = { workId: assignment.workId, attemptToken: assignment.attemptToken };
  expect((await thiefs.complete(assignment, "mine")).verdict).toBe(CompletionVerdict.UNKNOWN);
  thiefs.accept(assignment);
  thiefs.send({ case: "reject", value: { ...name, reason: RejectReason.INVALID } });
  thiefs.send({ case: "cancelled", value: name });
  const data = Buffer.from("fake");
  thiefs.send({ case: "output", value: { ...name, sequence: 1n, stream: OutputStream.STDOUT, data } });
  await thiefs.beat([assignment]);
  const unary = createClients({ url, token: thief.token });
  await expect(
    unary.device.completeRun({ completion: { ...name, outcome: Outcome.FAILED } }),
  ).rejects.toMatchObject({
    reason: "not_found",
    rawMessage: `this device has no such attempt of ${assignment.workId}`,
  });
  await expect(unary.device.triggerWatcher({ watcherId: assignment.watcher!.id })).rejects.toMatchObject({
    reason: "not_found",
  });
  expect((await getRun(clients, assignment)).status).toBe(RunStatus.RUNNING);
  expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
});

/** Mistakes of a device with work under way that end its stream. */
const endings: [string, (stream: DeviceStream, device: Identity) => void, grpcStatus, string][] = [
  [
    "a second hello",
    (stream, device) => stream.hello(device),
    grpcStatus.FAILED_PRECONDITION,
    "a second hello; a stream has one, so open another stream",
  ],
  [
    "a message without content",
    (stream) => stream.send({ case: undefined } as never),
    grpcStatus.INVALID_ARGUMENT,
    "message: exactly one is required",
  ],
  [
    "a heartbeat that names no run",
    (stream) =>
      stream.send({
        case: "heartbeat",
        value: { sequence: 1n, attempts: [{ workId: "seven", attemptToken: randomUUID() }] },
      }),
    grpcStatus.INVALID_ARGUMENT,
    "heartbeat.attempts[0].work_id: must be a valid UUID",
  ],
  [
    "an output chunk beyond the limit",
    (stream) =>
      stream.send({
        case: "output",
        value: {
          ...{ workId: randomUUID(), attemptToken: randomUUID(), sequence: 1n, stream: OutputStream.STDOUT },
          data: Buffer.alloc(32_769),
        },
      }),
    grpcStatus.INVALID_ARGUMENT,
    "output.data: ",
  ],
  [
    "a message of 10 MB",
    (stream) =>
      stream.send({
        case: "complete",
        value: {
          ...{ workId: randomUUID(), attemptToken: randomUUID(), outcome: Outcome.COMPLETED },
          output: "x".repeat(tenMegabytes),
        },
      }),
    grpcStatus.RESOURCE_EXHAUSTED,
    "message size",
  ],
];

test.each(endings)(
  "%s ends the stream, and the work goes on in the next one",
  async (_, misbehave, code, text) => {
    const { device, stream, assignment } = await beginWork();
    misbehave(stream, device);
    const ended = await stream.ended;
    expect(ended.code).toBe(code);
    expect(ended.details).toContain(text);
    await expectNothingLost(device, assignment);
  },
);

/** Bytes that are no messages, the gRPC status, and the text of the error. */
const garbage: [string, Buffer, grpcStatus | grpcStatus[], RegExp][] = [
  [
    "text that is no frame",
    Buffer.from("GET / HTTP/1.1\r\n\r\n"),
    grpcStatus.RESOURCE_EXHAUSTED,
    /message size/,
  ],
  ["half a frame's head", Buffer.from([0, 0, 0]), grpcStatus.INVALID_ARGUMENT, /prem|protocol error/],
  [
    "a frame cut short",
    frame(Buffer.alloc(5), { length: 100 }),
    grpcStatus.INVALID_ARGUMENT,
    /prem|protocol error/,
  ],
  [
    "a frame of 4 GB",
    frame(Buffer.alloc(5), { length: 0xffffffff }),
    grpcStatus.RESOURCE_EXHAUSTED,
    /message size/,
  ],
  [
    "a frame with a wrong length",
    frame(Buffer.alloc(64, 0xff), { length: 3 }),
    // Three bytes of an invalid message, and then a prefix of 4 GB: the status depends on the order
    // of the checks.
    [grpcStatus.RESOURCE_EXHAUSTED, grpcStatus.INVALID_ARGUMENT],
    /size|tag|varint|wire|range|EOF/i,
  ],
  [
    "a frame without a protobuf",
    frame(Buffer.alloc(64, 0xff)),
    grpcStatus.INVALID_ARGUMENT,
    /tag|varint|wire|range|EOF/i,
  ],
  [
    "a text without UTF-8",
    frame(Buffer.from([10, 4, 10, 2, 255, 254])),
    grpcStatus.INVALID_ARGUMENT,
    /is not valid UTF-8/,
  ],
  ["an unannounced compression", frame(Buffer.from([1]), { flags: 1 }), grpcStatus.INTERNAL, /compress/],
];

test.each(garbage)(
  "%s on the stream is answered, and the work of the device goes on",
  async (_, bytes, code, text) => {
    const { device, stream, assignment } = await beginWork();
    const answer = await callRaw("DeviceService/Connect", { token: device.token, bytes });
    expect(answer.httpStatus).toBe(200);
    expect([code].flat()).toContain(answer.code);
    expect(answer.message).toMatch(text);
    // A stream without a hello takes nothing from the serving stream.
    await stream.beat([assignment]);
    expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
  },
);

test.each(garbage)("%s in a unary call is answered", async (_, bytes, code, text) => {
  const answer = await callRaw("RunService/GetRun", { token: replicas.here.token, bytes });
  expect(answer.httpStatus).toBe(200);
  expect([code].flat()).toContain(answer.code);
  expect(answer.message).toMatch(text);
});

/** A Connect call as binary protobuf over HTTP/1.1. */
async function callBinary(bytes: Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) {
  const response = await fetch(`${replicas.here.url}/pinion.v1.RunService/GetRun`, {
    method: "POST",
    headers: {
      ...{ "content-type": "application/proto", authorization: `Bearer ${replicas.here.token}` },
      ...headers,
    },
    body: bytes,
  });
  return { status: response.status, body: await response.text() };
}

test.each(["gzip", "br"])("a message cut within its %s is the caller's mistake", async (encoding) => {
  const whole = encoding === "gzip" ? gzipSync("x".repeat(500)) : brotliCompressSync("x".repeat(500));
  const { status, body } = await callBinary(new Uint8Array(whole.subarray(0, -4)), {
    "content-encoding": encoding,
  });
  expect({ status, ...JSON.parse(body) }).toMatchObject({
    ...{ status: 400, code: "invalid_argument", message: "decompression failed" },
  });
});

test("a binary message that is no protobuf is the caller's mistake; a rule that a readable one breaks is named", async () => {
  const { status, body } = await callBinary(new Uint8Array(64).fill(0xff));
  expect({ status, ...JSON.parse(body) }).toMatchObject({ status: 400, code: "invalid_argument" });
  expect(body).toMatch(/parse binary: .*(tag|varint|wire|range|EOF)/i);
  const readable = await callBinary(new Uint8Array([10, 3, 97, 98, 99]));
  expect({ status: readable.status, ...JSON.parse(readable.body) }).toMatchObject({
    ...{ status: 400, code: "invalid_argument", message: expect.stringContaining("run_id") },
  });
});

test("a message over gRPC-Web that is no protobuf is the caller's mistake", async () => {
  const response = await fetch(`${replicas.here.url}/pinion.v1.RunService/GetRun`, {
    method: "POST",
    headers: { "content-type": "application/grpc-web+proto", authorization: `Bearer ${replicas.here.token}` },
    body: new Uint8Array(frame(Buffer.alloc(64, 0xff))),
  });
  expect(response.status).toBe(200);
  expect(await response.text()).toMatch(/grpc-status: 3\b/);
});

test("a hello that is followed by garbage opens the session and ends it, and the work goes on", async () => {
  const { device, stream, assignment } = await beginWork();
  const value = {
    installId: device.installId,
    os: Os.LINUX,
    maxConcurrency: 1,
    held: [heldOf(assignment)],
  };
  const hello = toBinary(
    ConnectRequestSchema,
    create(ConnectRequestSchema, { message: { case: "hello", value } }),
  );
  const bytes = Buffer.concat([frame(hello), frame(Buffer.alloc(64, 0xff))]);
  const answer = await callRaw("DeviceService/Connect", { token: device.token, bytes });
  expect(answer.code).toBe(grpcStatus.INVALID_ARGUMENT);
  expect(answer.message).toMatch(/^the message is no valid protobuf: /);
  await stream.ended;
  await expectNothingLost(device, assignment);
});

test("a content type that nobody speaks is refused as such", async () => {
  const { token } = replicas.here;
  const answer = await callRaw("RunService/ListRuns", {
    token,
    bytes: Buffer.alloc(0),
    contentType: "text/plain",
  });
  expect(answer.httpStatus).toBe(415);
});

test.each([
  ["heartbeat", { case: "heartbeat", value: { sequence: 1n } }],
  ["cancelled", { case: "cancelled", value: { runId: randomUUID(), attemptToken: randomUUID() } }],
] as const)("a %s before the hello ends the stream with what to do", async (name, message) => {
  const device = await enrolDevice(replicas.here.clients);
  const stream = dial(replicas.here.url, device.token);
  stream.send(message);
  expect(await stream.ended).toEqual({
    code: grpcStatus.FAILED_PRECONDITION,
    details: `${name} before the hello was answered; send hello first, and wait for welcome`,
  });
});

test.each([
  [
    "another installation's id",
    { installId: randomUUID() },
    grpcStatus.PERMISSION_DENIED,
    "another installation",
  ],
  ["another operating system", { os: Os.MACOS }, grpcStatus.PERMISSION_DENIED, "was enrolled as linux"],
  [
    "an installation id that is too short",
    { installId: "short" },
    grpcStatus.INVALID_ARGUMENT,
    "hello.install_id: ",
  ],
  ["no slots", { maxConcurrency: 0 }, grpcStatus.INVALID_ARGUMENT, "hello.max_concurrency: "],
  ["no operating system", { os: Os.UNSPECIFIED }, grpcStatus.INVALID_ARGUMENT, "hello.os: "],
])("a hello with %s is refused, and the session that serves stays", async (_, hello, code, text) => {
  const { url, device, stream, assignment } = await beginWork();
  const other = dial(url, device.token);
  other.hello(device, hello);
  const ended = await other.ended;
  expect(ended.code).toBe(code);
  expect(ended.details).toContain(text);
  expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
});

test("a stream without a hello is closed at the deadline", async () => {
  const replica = await startTestReplica(database.url, { PINION_HELLO_DEADLINE_MS: "200" });
  const device = await enrolDevice(replica.clients);
  const startedAt = performance.now();
  const stream = dial(replica.url, device.token);
  expect(await stream.ended).toEqual({
    code: grpcStatus.DEADLINE_EXCEEDED,
    details: "no hello within 200 ms; send it first",
  });
  // Without the setting, the deadline is 10 s.
  expect(performance.now() - startedAt).toBeLessThan(9_000);
  await (await connect(replica.url, device)).beat();
});

type CompletionInit = Omit<MessageInitShape<typeof CompletionSchema>, "$typeName" | "$unknown">;
/** See completionBytes. */
const textWithoutUtf8 = "not UTF-8: \u0001\u0001";

/** A completion as bytes; two markers in its texts become invalid UTF-8. */
function completionBytes(value: CompletionInit): Buffer {
  const message = create(ConnectRequestSchema, { message: { case: "complete", value } });
  const bytes = Buffer.from(toBinary(ConnectRequestSchema, message));
  const at = bytes.indexOf("\u0001\u0001");
  return at < 0 ? bytes : bytes.fill(0xff, at, at + 2);
}

const badCompletions: [string, CompletionInit][] = [
  ["outcome", {}],
  ["output", { outcome: Outcome.COMPLETED, output: `${"x".repeat(1_048_574)}end` }],
  ["reason", { outcome: Outcome.FAILED, reason: "x".repeat(4_001) }],
  ["duration", { outcome: Outcome.COMPLETED, duration: { seconds: -1n, nanos: 0 } }],
  ["output", { outcome: Outcome.COMPLETED, output: textWithoutUtf8 }],
  ["signal", { outcome: Outcome.FAILED, signal: textWithoutUtf8 }],
  ["notes", { outcome: Outcome.COMPLETED, notes: ["good", textWithoutUtf8] }],
];

test.each(badCompletions)(
  "a completion with a bad %s is answered as invalid and ends its run as failed, the stream lives, and a mended one comes late",
  async (field, value) => {
    const { stream, assignment, clients } = await beginWork();
    const name = { workId: assignment.workId, attemptToken: assignment.attemptToken };
    stream.sendBytes(completionBytes({ ...name, ...value }));
    const ack = await stream.next("completionAck");
    expect(ack).toMatchObject({ ...name, verdict: CompletionVerdict.INVALID, windowId: "" });
    expect(ack.message).toMatch(new RegExp(`^complete\\.${field}`));
    const run = await getRun(clients, assignment);
    expect(run).toMatchObject({ status: RunStatus.FAILED, attempt: 1 });
    expect(run.reason).toBe(`the device's result is invalid, and is set aside there: ${ack.message}`);
    const { summary } = await clients.runs.explainRun({ runId: run.id });
    expect(summary).toContain("result is invalid");
    await stream.beat([]);
    expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  },
);

const { complete: completeField } = ConnectRequestSchema.field;

/** Ways to break the bytes of a completion behind the ids of its attempt. */
const broken: [string, (bytes: Buffer) => Buffer][] = [
  ["a wire type that nobody knows", (bytes) => Buffer.concat([bytes, Buffer.from([(15 << 3) | 7])])],
  ["a varint without an end", (bytes) => Buffer.concat([bytes, Buffer.alloc(12, 0xff)])],
  ["a text that is shorter than its length", (bytes) => bytes.subarray(0, -3)],
];

// The other transport gives the bytes of such a message to nobody: its stream ends (see the next
// test).
test.skipIf(deviceStreamsOfFile() === "connect").each(broken)(
  "a completion with %s is answered as invalid and ends its run as failed, and the stream lives",
  async (_, breakIt) => {
    const { stream, assignment, clients } = await beginWork();
    const { workId, attemptToken } = assignment;
    const value = create(CompletionSchema, {
      ...{ workId, attemptToken, outcome: Outcome.COMPLETED },
      output: "the end of a long night",
    });
    const inner = breakIt(Buffer.from(toBinary(CompletionSchema, value)));
    const length = Buffer.from([(inner.length & 0x7f) | 0x80, inner.length >> 7]);
    stream.sendBytes(Buffer.concat([Buffer.from([(completeField.number << 3) | 2]), length, inner]));
    const ack = await stream.next("completionAck");
    expect(ack).toMatchObject({ workId, attemptToken, verdict: CompletionVerdict.INVALID });
    expect(ack.message).toMatch(/^complete: the message is no valid protobuf: /);
    const run = await getRun(clients, assignment);
    expect(run).toMatchObject({ status: RunStatus.FAILED, attempt: 1 });
    expect(run.reason).toContain("no valid protobuf");
    await stream.beat([]);
    expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  },
);

test("a message of which nothing can be read ends the stream with what is wrong, and its device may come back", async () => {
  const { device, stream, assignment } = await beginWork();
  stream.sendBytes(Buffer.alloc(16, 0xff));
  const ended = await stream.ended;
  expect(ended.code).toBe(grpcStatus.INVALID_ARGUMENT);
  expect(ended.details).toMatch(/^the message is no valid protobuf: /);
  await expectNothingLost(device, assignment);
});

test.each(badCompletions)(
  "a unary completion with a bad %s is refused, and ends its run as failed",
  async (field, value) => {
    const { device, assignment, clients } = await beginWork();
    const { workId, attemptToken } = assignment;
    const bytes = completionBytes({ workId, attemptToken, ...value });
    // `ConnectRequest.complete` and `CompleteRunRequest.completion` differ in their first byte
    // alone.
    bytes[0] = (1 << 3) | 2;
    const answer = await callRaw("DeviceService/CompleteRun", { token: device.token, bytes: frame(bytes) });
    expect(answer.code).toBe(grpcStatus.INVALID_ARGUMENT);
    expect(answer.message).toMatch(new RegExp(`^completion\\.${field}`));
    const run = await getRun(clients, assignment);
    expect(run).toMatchObject({ status: RunStatus.FAILED, reason: expect.stringContaining(answer.message) });
  },
);

test("a completion with a token that was never current changes nothing, and a late one says that it is late", async () => {
  const { clients, url, device, stream, assignment } = await beginWork();
  const made = { workId: assignment.workId, attemptToken: randomUUID() };
  expect((await stream.complete(made)).verdict).toBe(CompletionVerdict.UNKNOWN);
  const nowhere = { workId: randomUUID(), attemptToken: assignment.attemptToken };
  expect((await stream.complete(nowhere)).verdict).toBe(CompletionVerdict.UNKNOWN);
  // The device forgets the attempt and comes back: the attempt is taken away, and its report comes
  // late.
  stream.cancel();
  const back = await connect(url, device);
  await untilStatus(clients, assignment, RunStatus.TIMEOUT);
  const late = await back.complete(assignment);
  expect(late).toMatchObject({ verdict: CompletionVerdict.STORED_LATE, windowId: expect.any(String) });
  expect(late.message).toBe("it came late, and is the run's end after all");
  expect((await getRun(clients, assignment)).status).toBe(RunStatus.COMPLETED);
  expect((await back.complete(assignment)).verdict).toBe(CompletionVerdict.ALREADY_STORED);
});

test("a unary completion of 10 MB is refused for its size, and a smaller one is stored", async () => {
  const { url, device, assignment } = await beginWork();
  const unary = createClients({ url, token: device.token });
  const { workId, attemptToken } = assignment;
  const completion = { workId, attemptToken, outcome: Outcome.COMPLETED };
  await expect(
    unary.device.completeRun({ completion: { ...completion, output: "x".repeat(tenMegabytes) } }),
  ).rejects.toMatchObject({ reason: "resource_exhausted", rawMessage: expect.stringContaining("size") });
  await expect(
    unary.device.completeRun({ completion: { ...completion, output: "x".repeat(1_048_577) } }),
  ).rejects.toMatchObject({ reason: "invalid_argument", field: "completion.output" });
  const { verdict } = await unary.device.completeRun({ completion: { ...completion, output: "ok" } });
  // The previous report has ended the run.
  expect(verdict).toBe(CompletionVerdict.STORED_LATE);
});

test("10 MB that arrive as a few compressed KB are refused for their size all the same", async () => {
  const { url, token } = replicas.here;
  const session = http2Connect(url);
  onTestFinished(() => session.destroy());
  const stream = session.request({
    ":method": "POST",
    ":path": "/pinion.v1.WatcherService/CreateWatcher",
    authorization: `Bearer ${token}`,
    "content-type": "application/proto",
    "content-encoding": "gzip",
  });
  stream.end(gzipSync(Buffer.alloc(tenMegabytes)));
  const [headers] = await once(stream, "response");
  let body = "";
  for await (const chunk of stream) body += chunk;
  expect(headers[":status"]).toBe(429);
  expect(JSON.parse(body)).toMatchObject({ code: "resource_exhausted" });
});

test.each([
  [
    "a minute that no hour has",
    { schedule: "61 * * * *" },
    "spec.schedule",
    /"61 \* \* \* \*" is not a cron expression: ./,
  ],
  ["a schedule of four fields", { schedule: "* * * *" }, "spec.schedule", /is not a cron expression/],
  ["a date that never comes", { schedule: "0 0 31 2 *" }, "spec.schedule", /"0 0 31 2 \*" never fires/],
  [
    "a zone of another planet",
    { schedule: "@daily", timeZone: "Mars/Base" },
    "spec.time_zone",
    /"Mars\/Base" does not exist/,
  ],
  ["a prompt of 1 MB", { prompt: "x".repeat(1_048_576) }, "spec.prompt", /^spec\.prompt: .*262144/],
  ["no prompt", { prompt: "" }, "spec.prompt", /^spec\.prompt: /],
  ["a device that is no id", { deviceId: "laptop" }, "spec.device_id", /^spec\.device_id: /],
])("a watcher with %s is refused, naming the field, and is not created", async (_, spec, field, message) => {
  const { clients } = replicas.here;
  const slug = `refused-${randomUUID().slice(0, 8)}`;
  await expect(
    clients.watchers.createWatcher({ slug, spec: { name: "Refused", prompt: "do", ...spec } }),
  ).rejects.toMatchObject({
    reason: "invalid_argument",
    field,
    rawMessage: expect.stringMatching(message),
  });
  await expect(clients.watchers.getWatcher({ watcherId: slug })).rejects.toMatchObject({
    reason: "not_found",
  });
  if ("schedule" in spec) {
    await expect(clients.watchers.previewSchedule(spec)).rejects.toMatchObject({
      reason: "invalid_argument",
      rawMessage: expect.stringMatching(message),
    });
  }
});

test("a page token of another list, or of none, is refused by every list", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  for (let count = 0; count < 2; count++) await startWork(clients, device);
  await enrolDevice(clients);
  const lists: Record<
    string,
    (page: { pageSize: number; pageToken?: string }) => Promise<{ nextPageToken: string }>
  > = {
    runs: (page) => clients.runs.listRuns(page),
    watchers: (page) => clients.watchers.listWatchers(page),
    devices: (page) => clients.fleet.listDevices(page),
    tokens: (page) => clients.tokens.listTokens(page),
    events: (page) => clients.events.listEvents(page),
  };
  for (const [name, list] of Object.entries(lists)) {
    const { nextPageToken } = await list({ pageSize: 1 });
    expect(nextPageToken).not.toBe("");
    await list({ pageSize: 1, pageToken: nextPageToken });
    for (const [other, refusing] of Object.entries(lists)) {
      if (other === name) continue;
      await expect(
        refusing({ pageSize: 1, pageToken: nextPageToken }),
        `${name} in ${other}`,
      ).rejects.toMatchObject({
        reason: "invalid_argument",
        field: "page_token",
      });
    }
    for (const pageToken of [
      "x",
      "%%%",
      nextPageToken.slice(0, -3),
      Buffer.from("[null]").toString("base64url"),
    ]) {
      await expect(list({ pageSize: 1, pageToken })).rejects.toMatchObject({ field: "page_token" });
    }
  }
});

test.each([
  ["an unknown field", '{"page_siz": 3}', /page_siz/],
  ["a text for a number", '{"pageSize": "many"}', /page_size|pageSize/],
  ["a number for a text", '{"pageToken": 7}', /page_token|pageToken/],
  ["an unknown word of an enum", '{"statuses": ["RUN_STATUS_SLEEPING"]}', /"RUN_STATUS_SLEEPING"/],
  ["a list for the message", "[]", /ListRunsRequest/],
  ["half a JSON", '{"pageSize":', /JSON/],
  ["a number beyond its limit", '{"pageSize": 501}', /page_size/],
])("JSON over HTTP/1.1 with %s is refused, naming it", async (_, body, message) => {
  const { token } = replicas.here;
  const answer = await callJson("RunService/ListRuns", { token, body });
  expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
  expect(answer.message).toMatch(message);
});

test.each(["application/connect+json", "application/connect+proto", "application/grpc"])(
  "the device stream over HTTP/1.1 (%s) is refused at once, with a status",
  async (contentType) => {
    const { url, clients } = replicas.here;
    const { token } = await enrolDevice(clients);
    const request = http1Request(`${url}/pinion.v1.DeviceService/Connect`, {
      method: "POST",
      headers: { "content-type": contentType, authorization: `Bearer ${token}` },
    });
    request.on("error", () => {});
    onTestFinished(() => void request.destroy());
    request.flushHeaders();
    const [response] = await once(request, "response", { signal: AbortSignal.timeout(5_000) });
    expect(response.statusCode).toBe(505);
  },
);

test("an rpc and a service that do not exist are answered as such", async () => {
  for (const path of ["pinion.v1.RunService/NoSuchRpc", "pinion.v1.NoService/GetRun", "nothing"]) {
    const response = await fetch(`${replicas.here.url}/${path}`, { method: "POST" });
    expect(response.status).toBe(404);
    await response.body?.cancel();
  }
});
