import { afterEach, expect, onTestFinished, test, vi } from "vitest";
import { DueWheel, earlyMsMax } from "../../../src/server/device/attempts/due-wheel.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { DatabaseClock } from "../../../src/time/database-clock.ts";

/**
 * A statement that takes `thereMs` to the database and `backMs` back, with a database clock that is
 * `offsetMs` ahead of ours.
 */
function ask(clock: DatabaseClock, offsetMs: number, thereMs = 0.2, backMs = 0.2): void {
  const sentAt = performance.now();
  clock.sample({ sentAt, receivedAt: sentAt + thereMs + backMs, databaseMs: sentAt + thereMs + offsetMs });
}

/** From the first call on, the monotonic clock goes only so far as the calls say. */
function handMoved() {
  let now: number | undefined;
  onTestFinished(() => void vi.restoreAllMocks());
  return (ms: number) => {
    const before = now;
    now = performance.now() + ms;
    if (before === undefined) vi.spyOn(performance, "now").mockImplementation(() => now as number);
  };
}

/** Counts by turns of the event loop. */
function countedTurns() {
  const counts: number[] = [];
  let isNew = true;
  return {
    counts,
    count() {
      if (isNew) {
        counts.push(0);
        setImmediate(() => {
          isNew = true;
        });
      }
      isNew = false;
      counts.push((counts.pop() ?? 0) + 1);
    },
  };
}

const lateBy = (clock: DatabaseClock, offsetMs: number) => performance.now() + offsetMs - clock.now();

test("the estimate is late by what the quickest answer took on its way back, and never early", () => {
  const clock = new DatabaseClock();
  ask(clock, 1_000_000, 40, 60);
  ask(clock, 1_000_000, 0.1, 0.3);
  ask(clock, 1_000_000, 5, 90);
  expect(lateBy(clock, 1_000_000)).toBeGreaterThanOrEqual(0);
  expect(lateBy(clock, 1_000_000)).toBeLessThan(0.4);
});

test("a clock that was set is believed at once, and told; one that drifts is followed without a word", () => {
  const clock = new DatabaseClock();
  const jumps: number[] = [];
  clock.onJump((ms) => jumps.push(ms));
  ask(clock, 50_000);
  for (let step = 0; step < 50; step++) ask(clock, 50_000 + step * 0.05);
  expect(jumps).toEqual([]);
  expect(Math.abs(lateBy(clock, 50_000 + 49 * 0.05))).toBeLessThan(3);
  ask(clock, 3_650_000);
  ask(clock, 50_000);
  expect(jumps.map((ms) => Math.round(ms / 1_000))).toEqual([3_600, -3_600]);
  expect(Math.abs(lateBy(clock, 50_000))).toBeLessThan(1);
});

test("a jump to a time that is doubted is not taken, until the doubt is over", () => {
  const clock = new DatabaseClock();
  const jumps: number[] = [];
  clock.onJump((ms) => jumps.push(ms));
  ask(clock, 50_000);
  let isInDoubt = true;
  clock.doubt(() => isInDoubt);
  ask(clock, 45 * 86_400_000);
  expect(jumps).toEqual([]);
  expect(Math.abs(lateBy(clock, 50_000))).toBeLessThan(1);
  // The clock was told the time, so no further statement is due at once.
  expect(clock.ageMs).toBeLessThan(1_000);
  isInDoubt = false;
  ask(clock, 45 * 86_400_000);
  expect(jumps).toHaveLength(1);
  // Before any sample, this machine's clock stands in for a clock in doubt.
  const fresh = new DatabaseClock();
  fresh.doubt(() => true);
  ask(fresh, 45 * 86_400_000);
  expect(Math.abs(fresh.now() - Date.now())).toBeLessThan(1_000);
});

const log = createLogger({ name: "test", level: "silent" });
const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

function openWheel(clock: DatabaseClock, asked: () => Promise<unknown> = async () => {}) {
  const wheel = new DueWheel({ clock, ask: asked, log });
  closers.push(() => wheel.close());
  return wheel;
}

test("moments are called in their order, each after it has come, and one that is forgotten is not called", async () => {
  const clock = new DatabaseClock();
  ask(clock, 5_000_000);
  const wheel = openWheel(clock);
  const called: { at: number; earlyMs: number }[] = [];
  const base = clock.now();
  const moments = Array.from({ length: 200 }, (_, index) => base + ((index * 37) % 200) + 20.5);
  const forget = moments.map((at) => wheel.at(at, () => called.push({ at, earlyMs: at - clock.now() })));
  forget[7]!();
  forget[7]!();
  expect(wheel.size).toBe(199);
  await vi.waitFor(() => expect(called).toHaveLength(199), 5_000);
  expect(called.map(({ at }) => at)).toEqual(moments.filter((_, index) => index !== 7).sort((a, b) => a - b));
  expect(Math.max(...called.map(({ earlyMs }) => earlyMs))).toBeLessThanOrEqual(earlyMsMax);
  expect(wheel.size).toBe(0);
});

test("of a crowd that is due at one moment the first few do not wait for the rest, nor the rest for many turns", async () => {
  const clock = new DatabaseClock();
  ask(clock, 5_000_000);
  const wheel = openWheel(clock);
  const turns = countedTurns();
  // The monotonic clock stands still: a busy machine would end a turn by its milliseconds.
  handMoved()(0);
  const at = clock.now();
  for (let index = 0; index < 2_000; index++) wheel.at(at, () => turns.count());
  await vi.waitFor(() => expect(wheel.size).toBe(0), 5_000);
  expect(turns.counts.reduce((sum, count) => sum + count, 0)).toBe(2_000);
  expect(turns.counts[0]).toBe(2);
  expect(turns.counts.length).toBeLessThan(16);
});

test("a turn of the event loop has some milliseconds of what is due, however few callbacks these are", async () => {
  const clock = new DatabaseClock();
  ask(clock, 5_000_000);
  const wheel = openWheel(clock);
  const at = clock.now() + 20;
  const pass = handMoved();
  const turns = countedTurns();
  for (let index = 0; index < 100; index++) {
    wheel.at(at, () => {
      turns.count();
      pass(3);
    });
  }
  await vi.waitFor(() => expect(wheel.size).toBe(0), 5_000);
  expect(Math.max(...turns.counts)).toBe(2);
});

test("messages wait while more is due at one moment than a turn sends", async () => {
  const clock = new DatabaseClock();
  ask(clock, 5_000_000);
  const wheel = openWheel(clock);
  const at = clock.now() + 20;
  const wentOn: number[] = [];
  // A rush holds messages for 100 ms at most: the time stands still within this rush, since a busy
  // machine may take longer.
  const pass = handMoved();
  for (let index = 0; index < 1_000; index++) {
    wheel.at(at, () => {
      pass(0);
      // A device answers its frame at once.
      setImmediate(() => wheel.holds({ goOn: () => wentOn.push(wheel.size) }));
    });
  }
  await vi.waitFor(() => expect(wentOn.length).toBeGreaterThan(700), 5_000);
  expect(new Set(wentOn)).toEqual(new Set([0]));
});

test("a rush that goes on for long holds messages for a bounded time", async () => {
  const clock = new DatabaseClock();
  ask(clock, 5_000_000);
  const wheel = openWheel(clock);
  const beganAt = performance.now();
  let waitedMs = 0;
  const calm = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  // Work without an end: every callback of the moment brings another one. The first callbacks ask
  // for the end of the rush, because a busy machine may be done with its 100 ms before a test asks.
  const again = () => {
    if (wheel.holds({ goOn: calm.resolve })) held.resolve();
    if (waitedMs === 0) wheel.at(clock.now(), again);
  };
  for (let index = 0; index < 600; index++) wheel.at(clock.now() + 5, again);
  await held.promise;
  await calm.promise;
  waitedMs = performance.now() - beganAt;
  expect(wheel.size).toBeGreaterThan(0);
  await vi.waitFor(() => expect(wheel.size).toBe(0));
});

test("what waits is planned again when the database's clock was set: forwards it is due at once, backwards it waits", async () => {
  const clock = new DatabaseClock();
  ask(clock, 0);
  const wheel = openWheel(clock);
  const called: string[] = [];
  wheel.at(clock.now() + 60_000, () => called.push("in a minute"));
  wheel.at(clock.now() + 7_200_000, () => called.push("in two hours"));
  ask(clock, 3_600_000);
  await vi.waitFor(() => expect(called).toEqual(["in a minute"]));
  wheel.at(clock.now() + 60, () => called.push("soon, before it was set back"));
  ask(clock, 0);
  wheel.at(clock.now() + 60, () => called.push("soon"));
  await vi.waitFor(() => expect(called).toContain("soon"));
  expect(called).toEqual(["in a minute", "soon"]);
});

test("a clock that nobody has told for long is asked before it is relied on", async () => {
  const clock = new DatabaseClock();
  ask(clock, 0);
  const asked: number[] = [];
  const wheel = openWheel(clock, async () => {
    asked.push(performance.now());
    ask(clock, 0);
  });
  vi.spyOn(clock, "ageMs", "get").mockReturnValueOnce(60_000);
  await new Promise<void>((resolve) => wheel.at(clock.now() + 10, resolve));
  expect(asked).toHaveLength(1);
});
