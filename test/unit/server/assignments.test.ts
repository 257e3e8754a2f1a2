/**
 * A claimed run goes to its device when the run is due by the clock that the replica trusts. The
 * statement that claims knows the database's clock alone, which may have been set wrong.
 */
import { expect, test } from "vitest";
import { createLogger } from "../../../src/log.ts";
import { Assignments, type SessionView } from "../../../src/server/device/attempts/assignments.ts";
import type { Handling } from "../../../src/server/device/session/handling.ts";
import type { SessionServices } from "../../../src/server/device/session/session-services.ts";
import type { Prepared } from "../../../src/server/device/stream/link.ts";
import { plainRun } from "./claimed-run.ts";

const run = plainRun;
const dueMs = run.dueAt.getTime();

/** A serving session at a moment by the trusted clock, whose calls of the wheel wait for `reach`. */
function sessionAt(startMs: number, isWorker: boolean) {
  let nowMs = startMs;
  const calls: { at: number; callback: () => void }[] = [];
  const pushed: unknown[] = [];
  const session: SessionView = {
    ...{ orgId: "org-1", deviceId: run.deviceId, isWorker, epoch: 1, sessionId: crypto.randomUUID() },
    ...{ state: "serving", log: createLogger({ name: "test", level: "silent" }), wake: () => {} },
  };
  const services = {
    clock: { now: () => nowMs },
    wheel: {
      at(at: number, callback: () => void) {
        calls.push({ at, callback });
        return () => {};
      },
    },
    telemetry: { traceparent: () => "", pushed: () => {} },
    timers: { acceptDeadlineMs: 60_000 },
    cell: "",
    runMoved: () => {},
  } as unknown as SessionServices<never>;
  const link = {
    prepare: (): Prepared => ({ frame: new Uint8Array() }),
    send: (message: unknown) => pushed.push(message),
    end: () => {},
  };
  const assignments = new Assignments(session, { link, services, handling: {} as Handling });
  assignments.begin({ maxConcurrency: 1, continuing: [], ended: new Set() });
  return {
    assignments,
    pushed,
    reach(ms: number) {
      nowMs = ms;
      for (const call of calls.splice(0)) if (call.at <= ms) call.callback();
    },
  };
}

test.each([
  ["a fleet worker", true],
  ["a device", false],
])("a run of %s that only a wrong clock called due waits for its moment", (_, isWorker) => {
  const { assignments, pushed, reach } = sessionAt(dueMs - 957, isWorker);
  assignments.deliver(run, 1);
  expect(pushed).toHaveLength(0);
  reach(dueMs);
  expect(pushed).toHaveLength(1);
  assignments.end();
});

test("the run that waits for its moment takes a slot of its fleet worker", () => {
  const { assignments, reach } = sessionAt(dueMs - 957, true);
  expect(assignments.freeSlots()).toBe(1);
  assignments.deliver(run, 1);
  expect(assignments.freeSlots()).toBe(0);
  reach(dueMs);
  expect(assignments.freeSlots()).toBe(0);
  assignments.end();
});

test("a due run of a fleet worker is pushed at once", () => {
  const { assignments, pushed } = sessionAt(dueMs, true);
  assignments.deliver(run, 1);
  expect(pushed).toHaveLength(1);
  assignments.end();
});
