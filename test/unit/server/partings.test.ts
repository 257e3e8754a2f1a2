import { expect, onTestFinished, test, vi } from "vitest";
import { DrainReason } from "#gen/pinion/v1/device_pb.js";
import { reconnectAfterMs } from "../../../src/server/device/session/partings.ts";

test.each([
  [60_000, 5_000],
  [20_000, 5_000],
  [4_000, 1_000],
  [600, 150],
])(
  "with a TTL of %d ms the devices of a stopping replica are back after %d ms, long before they are taken for lost",
  (ttlMs, latestMs) => {
    const random = vi.spyOn(Math, "random").mockReturnValue(0.999_999);
    onTestFinished(() => random.mockRestore());
    const afterMs = reconnectAfterMs(DrainReason.SHUTDOWN, ttlMs);
    expect(afterMs).toBeLessThanOrEqual(latestMs);
    expect(afterMs).toBeGreaterThan(0.9 * latestMs);
  },
);
