/**
 * A claimed run goes to its device when the run is due by the clock that the replica trusts. The
 * statement that claims knows the database's clock alone, which may have been set wrong.
 */
import { expect, test } from "vitest";
import { Assignments, type SessionView } from "../../../../src/server/device/attempts/assignments.ts";
import type { Handling } from "../../../../src/server/device/session/handling.ts";
import type { SessionServices } from "../../../../src/server/device/session/session-services.ts";
import type { Prepared } from "../../../../src/server/device/stream/link.ts";
import type { Settlement } from "../../../../src/store/work/attempts/settlements.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { plainRun } from "./claimed-run.ts";

const run = plainRun;
const dueMs = run.dueAt.getTime();

/**
 * A serving session at a moment by the trusted clock, whose calls of the wheel wait for `reach`.
 */
function sessionAt(startMs: number, isWorker: boolean) {
  let nowMs = startMs;
  let calls: { at: number; callback: () => void }[] = [];
  const pushed: unknown[] = [];
  const givenBack: Settlement[] = [];
  const session: SessionView = {
    ...{ isWorker, state: "serving", isQuiet: false },
    log: createLogger({ name: "test", level: "silent" }),
  };
  const services = {
    clock: { now: () => nowMs },
    wheel: {
      at(at: number, callback: () => void) {
        const call = { at, callback };
        calls.push(call);
        return () => {
          calls = calls.filter((one) => one !== call);
        };
      },
    },
    telemetry: { traceparent: () => "", pushed: () => {} },
    timers: { acceptDeadlineMs: 60_000 },
    cell: "",
    dispatcher: { wake: () => {} },
    runMoved: () => {},
    works: {
      run: {
        async settle(settlement: Settlement) {
          givenBack.push(settlement);
          return true;
        },
      },
    },
  } as unknown as SessionServices<never>;
  const link = {
    prepare: (): Prepared => ({ frame: new Uint8Array() }),
    send: (message: unknown) => pushed.push(message),
    end: () => {},
  };
  const assignments = new Assignments(session, { link, services, handling: {} as Handling });
  const name = { orgId: "org-1", deviceId: run.deviceId, epoch: 1, sessionId: crypto.randomUUID() };
  assignments.begin({
    session: { ...name, kinds: null },
    maxConcurrency: 1,
    continuing: [],
    ended: new Set(),
  });
  return {
    assignments,
    pushed,
    givenBack,
    /** Calls that the wheel will make at a moment or later. */
    callsFrom: (ms: number) => calls.filter(({ at }) => at >= ms).length,
    reach(ms: number) {
      nowMs = ms;
      const reached = calls.filter(({ at }) => at <= ms);
      calls = calls.filter(({ at }) => at > ms);
      for (const { callback } of reached) callback();
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

test("due runs without a slot wait ten seconds for one, with one look in common, and are given back then", () => {
  const { assignments, pushed, givenBack, callsFrom, reach } = sessionAt(dueMs - 1_000, false);
  const [first, second, third, later] = Array.from({ length: 4 }, () => ({
    ...{ ...run, runId: crypto.randomUUID(), attemptToken: crypto.randomUUID() },
  })) as [typeof run, typeof run, typeof run, typeof run];
  for (const one of [first, second, third]) assignments.deliver(one, 1);
  assignments.deliver({ ...later, dueAt: new Date(dueMs + 5_000) }, 1);
  reach(dueMs);
  expect(pushed).toHaveLength(1);
  expect(callsFrom(dueMs + 10_000)).toBe(1);
  // A freed slot takes the next one.
  assignments.settled(first.attemptToken);
  const pushes = pushed.length;
  reach(dueMs + 9_999);
  expect(givenBack).toEqual([]);
  reach(dueMs + 10_001);
  expect(givenBack.map(({ workId }) => workId)).toEqual([third.runId]);
  reach(dueMs + 15_001);
  expect(givenBack.map(({ workId }) => workId)).toEqual([third.runId, later.runId]);
  expect(givenBack[0]).toMatchObject({ action: "withdraw", reason: "its device had no free slot for it" });
  expect(pushed).toHaveLength(pushes);
  assignments.end();
});

test("runs that are held when the session ends are given back, and nothing looks for them again", () => {
  const { assignments, givenBack, reach } = sessionAt(dueMs - 1_000, false);
  assignments.deliver(run, 1);
  assignments.end();
  reach(dueMs + 20_000);
  expect(givenBack.map(({ attemptToken }) => attemptToken)).toEqual([run.attemptToken]);
});
