/** A device's messages beside a rush of frames (due-wheel.ts), on a real HTTP/2 stream. */
import { once } from "node:events";
import { connect, createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { createDeviceStreams } from "../../../../src/server/device/stream/grpc-stream.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const log = createLogger({ level: "silent", name: "test" });
/** An empty message with gRPC's prefix. */
const frame = Buffer.from([0, 0, 0, 0, 0]);

/** A device's call to a server whose hub answers `calm`. */
async function open(calm: () => Promise<void> | undefined) {
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
    hub: { begin: () => session, calm } as never,
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
  let end = () => {};
  const rushes = [new Promise<void>((resolve) => (end = resolve))];
  let asked = 0;
  const { call, happened } = await open(() => {
    asked++;
    return rushes.shift();
  });
  call.write(frame);
  await vi.waitFor(() => expect(asked).toBe(1));
  call.end(frame);
  expect(happened).toEqual([]);
  end();
  await vi.waitFor(() => expect(happened).toEqual(["message", "message", "left"]));
});

test("outside of a rush a message is handled at once", async () => {
  const { call, happened } = await open(() => undefined);
  call.write(frame);
  await vi.waitFor(() => expect(happened).toEqual(["message"]));
});
