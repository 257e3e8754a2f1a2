import fc from "fast-check";
import { expect, test } from "vitest";
import { DrainReason } from "#gen/pinion/v1/device_pb.js";
import { backoffMs, decide, type SessionOutcome } from "../../../clients/ts/src/device/outcome.ts";
import { defaultTiming as timing } from "../../../clients/ts/src/device/timing.ts";

const none = { failures: 0, refusals: 0 };
const highest = () => 0.999_999;
const broken: SessionOutcome = { kind: "retryable", reason: "reset", isWakeUp: false };

test("the backoff is anywhere between nothing and its ceiling, from the first retry on", () => {
  fc.assert(
    fc.property(fc.nat(1_000), fc.double({ min: 0, max: 0.999_999, noNaN: true }), (failures, random) => {
      const ms = backoffMs(failures, timing, () => random);
      expect(ms).toBeGreaterThanOrEqual(0);
      expect(ms).toBeLessThanOrEqual(Math.min(timing.backoffCapMs, timing.backoffBaseMs * 2 ** failures));
    }),
  );
  expect(backoffMs(0, timing, () => 0)).toBe(0);
  expect(backoffMs(0, timing, highest)).toBe(500);
  expect(backoffMs(50, timing, highest)).toBe(30_000);
});

test("the backoff starts anew only after a session that held", () => {
  const history = { failures: 6, refusals: 0 };
  const served = (heldMs: number): SessionOutcome => ({
    kind: "served",
    heldMs,
    reason: "reset",
    isWakeUp: false,
  });
  expect(decide(served(20), history, timing)).toMatchObject({ history: { failures: 7 } });
  expect(decide(served(10_000), history, timing)).toMatchObject({ history: { failures: 0 } });
});

test("failures lengthen the wait without an end, and never end the connection", () => {
  let history = none;
  for (let round = 0; round < 100; round++) {
    const decision = decide(broken, history, timing, highest);
    if (decision.next !== "dial") throw new Error("gave up");
    history = decision.history;
    expect(decision.delayMs).toBeLessThanOrEqual(timing.backoffCapMs);
  }
});

test("a refusal by name ends the connection after three in a row; another failure in between starts the count anew", () => {
  const refused: SessionOutcome = {
    kind: "retryable",
    reason: "no",
    refusal: "unauthenticated",
    isWakeUp: false,
  };
  const count = (outcomes: SessionOutcome[]) => {
    let history = none;
    for (const [index, outcome] of outcomes.entries()) {
      const decision = decide(outcome, history, timing);
      if (decision.next === "close") return index + 1;
      history = decision.history;
    }
    return undefined;
  };
  expect(count([refused, refused, refused])).toBe(3);
  expect(count([refused, refused, broken, refused, refused])).toBeUndefined();
});

test("a drain waits as told; a replaced session comes back ever more slowly; a revoked device does not come back", () => {
  const drained = (drain: DrainReason): SessionOutcome => ({
    kind: "drained",
    heldMs: 5,
    drain,
    reconnectAfterMs: 300,
    message: "",
    cell: "",
  });
  const history = { failures: 5, refusals: 0 };
  expect(decide(drained(DrainReason.SHUTDOWN), history, timing, highest)).toMatchObject({ delayMs: 300 });
  expect(decide(drained(DrainReason.REPLACED), history, timing, highest)).toMatchObject({ delayMs: 30_000 });
  expect(decide(drained(DrainReason.REVOKED), history, timing)).toMatchObject({
    next: "close",
    error: "revoked",
  });
});

test("a fleet worker whose token was revoked is told what the server says, and not to enrol", () => {
  const outcome: SessionOutcome = {
    kind: "drained",
    heldMs: 5,
    drain: DrainReason.REVOKED,
    reconnectAfterMs: 0,
    message: "the fleet worker was deleted or its token revoked; start it with a good one",
    cell: "",
  };
  expect(decide(outcome, { failures: 0, refusals: 0 }, timing)).toMatchObject({
    next: "close",
    message: outcome.message,
  });
});

test("after a sleep nobody waits", () => {
  const woken: SessionOutcome = { kind: "served", heldMs: 5, reason: "slept", isWakeUp: true };
  expect(decide(woken, { failures: 9, refusals: 0 }, timing, highest)).toMatchObject({ delayMs: 0 });
});
