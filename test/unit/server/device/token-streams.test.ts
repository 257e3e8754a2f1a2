/** Maximum number of streams that a token may hold open on a replica. */
import { expect, test } from "vitest";
import { createTokenStreams, workerStreamsMax } from "../../../../src/server/device/stream/token-streams.ts";

test("a service's token has a stated number of streams, whatever they have said, and gets room as they end", () => {
  const streams = createTokenStreams();
  const service = { tokenId: "t", deviceId: null };
  const leaves = Array.from({ length: workerStreamsMax }, () => {
    streams.requireRoom(service);
    return streams.add({ tokenId: "t", state: "serving" });
  });
  expect(() => streams.requireRoom(service)).toThrow(
    expect.objectContaining({ reason: "resource_exhausted", retryAfterMs: expect.any(Number) }),
  );
  streams.requireRoom({ tokenId: "another", deviceId: null });
  leaves[0]!();
  streams.requireRoom(service);
});
