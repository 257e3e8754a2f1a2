/** Maximum number of streams that a token may hold open on a replica. */
import { expect, test } from "vitest";
import { createTokenStreams, workerStreamsMax } from "../../../../src/server/device/stream/token-streams.ts";

test("a service's token has a stated number of streams, whatever they have said, and gets room as they end", () => {
  const streams = createTokenStreams();
  const service = { tokenId: "t", deviceId: null };
  const open = Array.from({ length: workerStreamsMax }, () => {
    streams.requireRoom(service);
    const stream = { tokenId: "t", state: "serving" } as const;
    streams.add(stream);
    return stream;
  });
  expect(() => streams.requireRoom(service)).toThrow(
    expect.objectContaining({ reason: "resource_exhausted", retryAfterMs: expect.any(Number) }),
  );
  streams.requireRoom({ tokenId: "another", deviceId: null });
  streams.remove(open[0]!);
  streams.requireRoom(service);
  for (const stream of [...open, open[0]!]) streams.remove(stream);
  for (const stream of open.slice(0, 4)) streams.add(stream);
  const device = { tokenId: "t", deviceId: "d" };
  expect(() => streams.requireRoom(device)).toThrow(
    expect.objectContaining({ reason: "resource_exhausted" }),
  );
  streams.remove(open[1]!);
  streams.requireRoom(device);
});
