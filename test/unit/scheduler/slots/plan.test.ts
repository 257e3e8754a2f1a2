import { expect, test } from "vitest";
import { jitterOf } from "../../../../src/scheduler/schedule/schedule.ts";
import {
  type Plan,
  planAhead,
  planBacklog,
  planDue,
  planManual,
  slotsPerPassMax,
} from "../../../../src/scheduler/slots/plan.ts";
import type { DeviceOffers } from "../../../../src/store/work/watchers/device-offers.ts";
import type { DueWatcher } from "../../../../src/store/work/watchers/schedules.ts";
import { dueWatcher } from "../../../support/due-watcher.ts";

const watcherId = "018f0000-0000-7000-8000-000000000001";
const at = (text: string) => new Date(`2026-01-10T${text}Z`);

/** Hourly, looked at half a minute after ten. */
const watcher: DueWatcher = dueWatcher({
  ...{ watcherId, schedule: "0 * * * *", timeZone: "UTC" },
  ...{ nextSlotAt: at("10:00:00"), now: at("10:00:30") },
});

/**
 * The offers of a device with claude and the workspace "web", for a watcher that names something
 * else.
 */
function offers(named: Partial<DeviceOffers>): DeviceOffers {
  return {
    ...{ agentKind: "", workspace: "", label: "mac-7", kinds: ["claude"], tells: true, workspaces: ["web"] },
    ...named,
  };
}

/** The outcome of each slot, as "hour outcome". */
function outcome(plan: Plan): string[] {
  const hour = (slot: Date | null) => slot?.toISOString().slice(11, 13) ?? "now";
  return [
    ...plan.slots.map((slot) => `${hour(slot.scheduledFor)} ${slot.skipReason ?? "run"}`),
    ...plan.aside.map((slot) => `${hour(slot.scheduledFor)} waits`),
  ];
}

const due: [what: string, changes: Partial<DueWatcher>, outcome: string[]][] = [
  ["a due slot is run", {}, ["10 run"]],
  ["nothing is due before its time", { now: at("09:59:59") }, []],
  ["nothing is due without a schedule", { schedule: null }, []],
  [
    "slots that passed collapse into the latest",
    { nextSlotAt: at("07:00:00") },
    ["07 missed", "08 missed", "09 missed", "10 run"],
  ],
  [
    "without catching up only a slot that is on time runs",
    { nextSlotAt: at("09:00:00"), catchup: "miss" },
    ["09 missed", "10 run"],
  ],
  [
    "without catching up a slot that is a minute late is missed",
    { catchup: "miss", now: at("10:01:01") },
    ["10 missed"],
  ],
  [
    "a slot later than the catch-up window is missed",
    { catchupWindowMs: 600_000, now: at("10:20:00") },
    ["10 missed"],
  ],
  ["a slot of the window's last moment runs", { catchupWindowMs: 600_000, now: at("10:10:00") }, ["10 run"]],
  ["an active run makes it overlap", { hasActiveRun: true }, ["10 overlap"]],
  ["an active run makes it wait with queue_one", { hasActiveRun: true, overlap: "queue_one" }, ["10 waits"]],
  [
    "the latest waits with queue_one, in the place of the one before",
    { hasActiveRun: true, overlap: "queue_one", queuedSlotAt: at("09:00:00") },
    ["09 overlap", "10 waits"],
  ],
  [
    "a backfilled slot keeps its place in the queue",
    {
      hasActiveRun: true,
      overlap: "queue_one",
      backlogSlotAt: at("03:00:00"),
      backlogSource: "backfill",
    },
    ["10 waits"],
  ],
  [
    "a waiting slot gives way to a newer one, also when the active run has just ended",
    { overlap: "queue_one", queuedSlotAt: at("09:00:00") },
    ["09 overlap", "10 run"],
  ],
  ["a cooldown skips it", { lastRunAt: at("09:30:00"), minCooldownMs: 3_600_000 }, ["10 cooldown"]],
  ["a cooldown that is over does not", { lastRunAt: at("09:00:00"), minCooldownMs: 3_600_000 }, ["10 run"]],
  ["a back-off skips it", { backoffUntil: at("10:15:00") }, ["10 cooldown"]],
  ["a back-off that is over does not", { backoffUntil: at("09:59:59") }, ["10 run"]],
  [
    "a deleted device skips all",
    { status: "no_executor", nextSlotAt: at("09:00:00") },
    ["09 no_executor", "10 no_executor"],
  ],
  ["a missing agent skips it", { hasAgent: false }, ["10 no_executor"]],
  [
    "an executor that its device does not have skips it",
    { offers: offers({ agentKind: "codex" }) },
    ["10 no_executor"],
  ],
  [
    "a workspace that its device does not have skips it",
    { offers: offers({ workspace: "app" }) },
    ["10 no_executor"],
  ],
  [
    "an executor and a workspace that its device has run it",
    { offers: offers({ agentKind: "claude", workspace: "web" }) },
    ["10 run"],
  ],
  [
    "a device that never said what it has runs it",
    { offers: offers({ agentKind: "codex", workspace: "app", kinds: [], tells: false }) },
    ["10 run"],
  ],
  [
    "slots that were due when its failures paused it are skipped",
    { status: "paused", nextSlotAt: at("09:00:00") },
    ["09 cooldown", "10 cooldown"],
  ],
];

for (const [what, changes, expected] of due) {
  test(what, () => {
    const plan = planDue({ ...watcher, ...changes });
    expect(outcome(plan)).toEqual(expected);
    expect(plan.move.lastRunAt !== null).toBe(expected.some((line) => line.endsWith("run")));
  });
}

test("the schedule moves to the first slot after now, and a paused one has none", () => {
  expect(planDue(watcher).move).toMatchObject({ nextSlotAt: at("11:00:00"), nextDueAt: at("11:00:00") });
  expect(planDue({ ...watcher, status: "paused" }).move).toMatchObject({ nextSlotAt: null, nextDueAt: null });
});

test("a pass takes a bounded number of slots, none of them runs, and the rest is due at once", () => {
  const from = new Date(watcher.now.getTime() - (slotsPerPassMax + 5) * 3_600_000);
  from.setUTCMinutes(0, 0, 0);
  const plan = planDue({ ...watcher, nextSlotAt: from });
  expect(plan.slots).toHaveLength(slotsPerPassMax);
  expect(plan.slots.every((slot) => slot.skipReason === "missed")).toBe(true);
  expect(plan.move.nextDueAt!.getTime()).toBeLessThan(watcher.now.getTime());
  expect(plan.move.nextSlotAt!.getTime()).toBe(plan.slots.at(-1)!.scheduledFor!.getTime() + 3_600_000);
});

test("a jitter moves when a slot is due, and not the slot nor its window", () => {
  const jitterMs = 1_800_000;
  const offset = jitterOf(watcherId, jitterMs);
  expect(offset).toBeGreaterThan(0);
  const slot = at("10:00:00");
  const early = new Date(slot.getTime() + offset - 1);
  const onTime = new Date(slot.getTime() + offset);
  expect(outcome(planDue({ ...watcher, jitterMs, now: early }))).toEqual([]);
  const plan = planDue({ ...watcher, jitterMs, now: onTime });
  expect(plan.slots).toMatchObject([{ scheduledFor: slot, windowEnd: slot, dueAt: onTime }]);
  expect(plan.move).toMatchObject({
    nextSlotAt: at("11:00:00"),
    nextDueAt: new Date(at("11:00:00").getTime() + offset),
  });
});

const windows: [what: string, changes: Partial<DueWatcher>, start: Date][] = [
  ["the last stored result", { windowCursorAt: at("04:30:00") }, at("04:30:00")],
  ["the slot before, when nothing was stored", {}, at("09:00:00")],
  [
    "the slot before, when the last result is from after the slot",
    { windowCursorAt: at("10:00:10") },
    at("09:00:00"),
  ],
];

for (const [what, changes, start] of windows) {
  test(`a slot's window begins at ${what}`, () => {
    expect(planDue({ ...watcher, ...changes }).slots).toMatchObject([
      { windowStart: start, windowEnd: at("10:00:00") },
    ]);
  });
}

test("a waiting slot is taken when no run is active, and the schedule stays", () => {
  const waiting = { ...watcher, backlogSlotAt: at("09:00:00"), backlogSource: "scheduled" as const };
  const plan = planBacklog(waiting);
  expect(outcome(plan)).toEqual(["09 run"]);
  expect(plan.move).toMatchObject({ nextSlotAt: at("10:00:00"), nextDueAt: at("10:00:00") });
  expect(outcome(planBacklog({ ...waiting, hasActiveRun: true }))).toEqual([]);
  expect(outcome(planBacklog({ ...waiting, backoffUntil: at("11:00:00") }))).toEqual(["09 cooldown"]);
  expect(outcome(planBacklog({ ...waiting, status: "no_executor" }))).toEqual(["09 no_executor"]);
});

test("a backfilled slot runs in a back-off too, now, over the window of its slot", () => {
  const plan = planBacklog({
    ...watcher,
    backlogSlotAt: at("03:00:00"),
    backlogSource: "backfill",
    backoffUntil: at("11:00:00"),
    windowCursorAt: at("02:30:00"),
  });
  expect(plan.slots).toMatchObject([
    { source: "backfill", dueAt: watcher.now, windowStart: at("02:00:00"), windowEnd: at("03:00:00") },
  ]);
});

test("a manual run is about the time from the last result until now, and moves no schedule", () => {
  const plan = planManual({ ...watcher, windowCursorAt: at("04:00:00") });
  expect(plan.slots).toMatchObject([
    { scheduledFor: null, source: "manual", windowStart: at("04:00:00"), windowEnd: watcher.now },
  ]);
  expect(plan.move).toMatchObject({ nextSlotAt: at("10:00:00"), lastRunAt: expect.any(Date) });
  const first = planManual(watcher).slots[0]!;
  expect(first.windowEnd.getTime() - first.windowStart.getTime()).toBe(86_400_000);
});

test("a retry is about the window of the run that it repeats", () => {
  const retryOf = { runId: watcherId, windowStart: at("01:00:00"), windowEnd: at("02:00:00") };
  expect(planManual(watcher, { retryOf }).slots).toMatchObject([
    { retryOf: watcherId, windowStart: at("01:00:00"), windowEnd: at("02:00:00") },
  ]);
});

const soon = { now: at("09:59:58.5") };
const until = at("10:00:00.5");

test("a slot that is not due yet is planned as the run that it would become at its moment", () => {
  const plan = planAhead({ ...watcher, ...soon }, until)!;
  const due = planDue({ ...watcher, now: at("10:00:00") });
  const withoutId = ({ slots, move }: Plan) => ({
    slots: slots.map((slot) => ({ ...slot, runId: "" })),
    move,
  });
  expect(withoutId(plan)).toEqual(withoutId(due));
  expect(plan.isAhead).toBe(true);
});

const decidedThen: [what: string, changes: Partial<DueWatcher>][] = [
  ["beyond the look-ahead", { now: at("09:59:50"), nextSlotAt: at("10:00:01") }],
  ["due already", { now: at("10:00:00") }],
  ["of a watcher with an active run", { hasActiveRun: true }],
  ["of a watcher that is paused", { status: "paused" }],
  ["of a watcher without an executor", { status: "no_executor" }],
  ["of a watcher whose agent does not exist", { hasAgent: false }],
  ["of a watcher whose device has no such workspace", { offers: offers({ workspace: "app" }) }],
  ["of a watcher that cools down", { lastRunAt: at("09:55:00"), minCooldownMs: 600_000 }],
  ["of a watcher that is backed off", { backoffUntil: at("10:00:01") }],
  ["behind another one that waits", { backlogSlotAt: at("09:00:00"), backlogSource: "scheduled" }],
  ["of a watcher without a schedule", { schedule: null, nextSlotAt: null, nextDueAt: null }],
];

test.each(decidedThen)("a slot %s is decided at its moment", (_, changes) => {
  expect(planAhead({ ...watcher, ...soon, ...changes }, until)).toBeUndefined();
});
