/**
 * A peer that opens no window for the messages sent to it, over a bare HTTP/2 client: the stream is
 * cut.
 */
import { type ClientHttp2Stream, connect as http2Connect } from "node:http2";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { status as grpcStatus } from "@grpc/grpc-js";
import { expect, onTestFinished, test, vi } from "vitest";
import { CompletionVerdict, ConnectRequestSchema, Os, Outcome } from "#gen/pinion/v1/device_pb.js";
import { Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice, type Identity } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { getRun, startWork, takeOn, untilStatus, usePatientReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = usePatientReplicas(database, "here");

/**
 * The grace for an ended stream is 2 s; the TTL (60 s), and the deadlines of HTTP/2 itself (30 s of
 * silence, and 10 s for a ping), are longer.
 */
const cutMs = 15_000;

function framed(message: MessageInitShape<typeof ConnectRequestSchema>["message"]): Buffer {
  const payload = toBinary(ConnectRequestSchema, create(ConnectRequestSchema, { message: message! }));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
}

/** A device's session on a stream with a closed window: only headers reach the device. */
async function openShut(device: Identity): Promise<{ stream: ClientHttp2Stream; closed: Promise<number> }> {
  const { clients, url } = replicas.here;
  const session = http2Connect(url, { settings: { initialWindowSize: 0, enablePush: false } });
  session.on("error", () => {});
  onTestFinished(() => session.destroy());
  await new Promise<void>((resolve) => session.once("localSettings", () => resolve()));
  const stream = session.request({
    ":method": "POST",
    ":path": "/pinion.v1.DeviceService/Connect",
    "content-type": "application/grpc",
    te: "trailers",
    authorization: `Bearer ${device.token}`,
  });
  stream.on("error", () => {});
  stream.resume();
  const closed = new Promise<number>((resolve) => stream.once("close", () => resolve(stream.rstCode!)));
  const { installId } = device;
  const about = { os: Os.LINUX, appVersion: "test", agentKinds: [], maxConcurrency: 1 };
  stream.write(framed({ case: "hello", value: { installId, ...about } }));
  await vi.waitFor(async () => {
    const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
    expect(seen!.liveness).toBe(Liveness.ONLINE);
  });
  return { stream, closed };
}

/** Resolves when the stream is closed; rejects when the stream is still open after `ms`. */
async function within<T>(closed: Promise<T>, ms = cutMs): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`still open after ${ms} ms`)), ms);
  });
  return Promise.race([closed, late]).finally(() => clearTimeout(timer));
}

test("a device that is deleted loses its stream within seconds, though it makes no room for a word of it", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  const { closed } = await openShut(device);
  await clients.fleet.deleteDevice({ deviceId: device.deviceId });
  await within(closed);
});

test("a stream that a newer one has replaced is cut, though it makes no room for a word of it", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const { closed } = await openShut(device);
  const newer = await connect(url, device);
  await within(closed);
  await newer.beat();
});

test("a slow reader is cut, not waited for: no more than a thousand messages wait for it", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  const { stream, closed } = await openShut(device);
  // The welcome is one of the waiting messages.
  for (let i = 0; i < 998; i++) stream.write(framed({ case: "heartbeat", value: { sequence: BigInt(i) } }));
  const online = async () => {
    const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
    return seen!.disconnectedAt === undefined;
  };
  expect(await online()).toBe(true);
  expect(stream.closed).toBe(false);
  // The transport itself may hold some thousands more.
  for (let i = 0; i < 8_000; i++) stream.write(framed({ case: "heartbeat", value: { sequence: 1_000n } }));
  await within(closed);
  await vi.waitFor(async () => expect(await online()).toBe(false));
});

test("a device that closes its side while its result is stored hears that it was", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  await untilStatus(clients, assignment, RunStatus.RUNNING);
  await using held = await hold(database.db);
  const { workId, attemptToken } = assignment;
  await held.tx.selectFrom("run").select("id").where("id", "=", workId).forUpdate().execute();
  stream.send({
    case: "complete",
    value: { workId, attemptToken, outcome: Outcome.COMPLETED, output: "done" },
  });
  stream.end();
  await untilBlocked(database.db);
  await held.commit();
  expect((await stream.next("completionAck")).verdict).toBe(CompletionVerdict.STORED);
  expect((await stream.ended).code).toBe(grpcStatus.OK);
  expect((await getRun(clients, { workId })).status).toBe(RunStatus.COMPLETED);
});
