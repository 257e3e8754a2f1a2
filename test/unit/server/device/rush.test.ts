/** The pace of devices' messages (rush.ts), also on a real HTTP/2 stream. */
import { once } from "node:events";
import { connect, createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { type Held, Rush } from "../../../../src/server/device/attempts/rush.ts";
import { createDeviceStreams } from "../../../../src/server/device/stream/grpc-stream.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const log = createLogger({ level: "silent", name: "test" });
/** An empty message with gRPC's prefix. */
const never = () => false;
const frame = Buffer.from([0, 0, 0, 0, 0]);

/** A device's call to a server whose hub has this pace. */
async function open(pace: { holds?: (stream: Held) => boolean; interrupts?: (stream: Held) => boolean }) {
  const happened: string[] = [];
  const session = {
    state: "open",
    receive: () => void happened.push("message"),
    left: () => void happened.push("left"),
    close: () => {},
    failed: () => void happened.push("failed"),
  };
  const streams = createDeviceStreams({
    guard: {
      isUnknown: () => false,
      authenticate: async () => ({}),
      admit: async () => ({ tokenId: "t", orgId: "o" }),
    } as never,
    limits: { requireRequest() {}, requireAttempt() {}, countFailure() {} } as never,
    hub: { begin: () => session, pace: { holds: never, interrupts: never, ...pace } } as never,
    trustedProxies: 0,
    log,
    messageBytesMax: 1_000,
  });
  const server = createServer();
  server.on("stream", (stream: ServerHttp2Stream, headers) => void streams.take(stream, headers));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  onTestFinished(() => {
    client.destroy();
    server.close();
  });
  const call = client.request({
    ":method": "POST",
    ":path": "/pinion.v1.DeviceService/Connect",
    "content-type": "application/grpc",
  });
  call.on("error", () => {});
  return { call, happened };
}

test("a device's messages wait for the end of a rush, and are then handled in their order", async () => {
  const held: Held[] = [];
  const { call, happened } = await open({ holds: (stream) => held.push(stream) === 1 });
  call.write(frame);
  await vi.waitFor(() => expect(held).toHaveLength(1));
  call.end(frame);
  expect(happened).toEqual([]);
  held[0]?.goOn();
  await vi.waitFor(() => expect(happened).toEqual(["message", "message", "left"]));
});

test("a stream with many messages goes on in a later turn when the turn's time is used up", async () => {
  const held: Held[] = [];
  const { call, happened } = await open({ interrupts: (stream) => held.length < 2 && held.push(stream) > 0 });
  call.end(Buffer.concat([frame, frame, frame]));
  await vi.waitFor(() => expect(held).toHaveLength(1));
  expect(happened).toEqual(["message"]);
  held[0]?.goOn();
  expect(happened).toEqual(["message", "message"]);
  held[1]?.goOn();
  await vi.waitFor(() => expect(happened).toEqual(["message", "message", "message", "left"]));
});

test("outside of a rush a message is handled at once", async () => {
  const { call, happened } = await open({});
  call.write(frame);
  await vi.waitFor(() => expect(happened).toEqual(["message"]));
});

test("messages of many devices take some milliseconds of each turn, and the devices keep their order", async () => {
  const rush = new Rush();
  let now = performance.now();
  vi.spyOn(performance, "now").mockImplementation(() => now);
  onTestFinished(() => void vi.restoreAllMocks());
  const turns: number[][] = [[]];
  const handle = (index: number) => {
    turns.at(-1)?.push(index);
    now += 1;
  };
  for (let index = 0; index < 50; index++) {
    if (!rush.holds({ goOn: () => handle(index) })) handle(index);
  }
  while (turns.flat().length < 50) {
    turns.push([]);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(turns.flat()).toEqual(Array.from({ length: 50 }, (_, index) => index));
  expect(Math.max(...turns.map((turn) => turn.length))).toBeLessThanOrEqual(5);
});
