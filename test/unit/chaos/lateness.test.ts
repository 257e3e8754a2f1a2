/**
 * "Late by at most the sweep": the waits for a push counted by the rule, and the accepted reasons
 * for lateness.
 */
import { expect, test } from "vitest";
import { checkLateness, fullSpans, waitsAbove } from "../../chaos/checker/lateness.ts";
import { type Bounds, makeWorld } from "../../chaos/checker/world.ts";
import type { Entry, Happening } from "../../chaos/history.ts";
import type { FaultKind } from "../../chaos/plan.ts";
import type { EventRow, Rows, RunRow } from "../../chaos/rows.ts";

const bounds: Bounds = {
  ttlMs: 4_000,
  silentAttemptMs: 8_000,
  slackMs: 2_000,
  sweepMs: 3_000,
  pushSlackMs: 1_000,
};
const start = Date.UTC(2026, 0, 1, 12, 0);
const device = "device-1";
const endsAt = 60_000;
/** The run of the life is due here. */
const dueAt = 20_000;

const at = (ms: number, happening: Happening): Entry => ({ at: start + ms, ...happening });
const seen = (ms: number, message: Extract<Happening, { kind: "seen" }>["message"], stream = "s1") =>
  at(ms, { kind: "seen", device, stream, message });
const event = (ms: number, kind: string, run: string, watcher = "watcher-1"): EventRow => ({
  kind,
  org: "north",
  run,
  watcher,
  rule: null,
  scheduledFor: null,
  committedAt: start + ms,
});
const runRow = (values: Partial<RunRow> & { id: string }): RunRow => ({
  org: "north",
  watcher: "watcher-1",
  device,
  source: "manual",
  scheduledFor: null,
  dueAt: start + dueAt,
  status: "completed",
  token: null,
  claimedAt: null,
  finishedAt: null,
  retryOf: null,
  isReported: true,
  windowId: null,
  skipReason: null,
  reason: "",
  past: [],
  ...values,
});

type Life = { history: Entry[]; rows: Rows; slots: number };

/** A device connected for a minute, and a run that is due at 20 s and pushed `lateMs` later. */
function lifeOf({ lateMs }: { lateMs: number }): Life {
  const pushedAt = dueAt + lateMs;
  const acks = Array.from({ length: endsAt / 1_000 }, (_, index) =>
    seen(index * 1_000, { case: "heartbeatAck" }),
  );
  const named = { run: "run-1", token: "token-1", attempt: 1, watcher: "watcher-1", deviceId: device };
  return {
    slots: 1,
    history: [
      at(0, { kind: "replica", replica: "replica-1", phase: "serving" }),
      ...acks,
      seen(pushedAt, { case: "assignment", prompt: device, ...named }),
    ],
    rows: {
      late: [],
      windows: [],
      slots: [],
      backlog: [],
      watchers: [],
      devices: [{ id: device, org: "north" }],
      runs: [
        runRow({
          id: "run-1",
          token: "token-1",
          claimedAt: start + pushedAt - 5,
          finishedAt: start + pushedAt + 500,
        }),
      ],
      events: [event(dueAt + 10, "run.created", "run-1"), event(pushedAt + 500, "run.completed", "run-1")],
    },
  };
}

function worldOf({ history, rows, slots }: Life) {
  const devices = [
    at(0, { kind: "device", device, host: "host-1", org: "north", slots }),
    at(0, { kind: "device", device: "device-2", host: "host-2", org: "north", slots: 1 }),
  ];
  return makeWorld(
    [...devices, ...history].sort((a, b) => a.at - b.at),
    rows,
    bounds,
  );
}

const isBroken = (life: Life) => checkLateness(worldOf(life)) !== undefined;

const faultFrom = (life: Life, name: FaultKind, targets: string[], fromMs: number, toMs: number) => {
  const fault = { kind: "fault" as const, fault: 7, name, targets };
  life.history.push(at(fromMs, { ...fault, phase: "begin" }), at(toMs, { ...fault, phase: "end" }));
};

/** Another run out at the device, by default of another watcher. */
const otherRun = (life: Life, fromMs: number, toMs: number, watcher = "watcher-2") => {
  const values = { id: "run-2", watcher, token: "token-2", dueAt: start + fromMs, claimedAt: start + fromMs };
  life.rows.runs.push(runRow({ ...values, finishedAt: start + toMs }));
  const named = { run: "run-2", token: "token-2", attempt: 1, watcher, deviceId: device };
  life.history.push(seen(fromMs + 5, { case: "assignment", prompt: device, ...named }));
  life.rows.events.push(
    event(fromMs, "run.created", "run-2", watcher),
    event(toMs, "run.completed", "run-2", watcher),
  );
};

test("a run that is pushed within the sweep and what a busy machine adds to it is on time", () => {
  expect(isBroken(lifeOf({ lateMs: 50 }))).toBe(false);
  expect(isBroken(lifeOf({ lateMs: 3_900 }))).toBe(false);
});

test("a run that waits longer is late, and for how long is said", () => {
  const life = lifeOf({ lateMs: 4_100 });
  expect(checkLateness(worldOf(life))).toMatchObject({
    rule: "late by at most the sweep",
    what: expect.stringContaining("for 4100 ms"),
  });
  expect(waitsAbove(worldOf(life), 1_000)).toMatchObject([
    { from: start + dueAt, to: start + dueAt + 4_100 },
  ]);
});

const noReasons: [what: string, change: (life: Life) => void][] = [
  [
    "notifications are lost all the time",
    (life) => faultFrom(life, "notifications_lost", ["replica-1"], 1_000, 50_000),
  ],
  ["LISTEN is dropped meanwhile", (life) => faultFrom(life, "listen_dropped", ["listeners"], 21_000, 21_001)],
  [
    "another device's network is broken",
    (life) => faultFrom(life, "network_hang", ["device-2"], 15_000, 40_000),
  ],
  ["another host is stopped", (life) => faultFrom(life, "host_pause", ["host-2"], 15_000, 40_000)],
  [
    "the database was away long ago",
    (life) => faultFrom(life, "postgres_outage", ["postgres"], 5_000, 14_000),
  ],
  ["the device's slot was in use long ago", (life) => otherRun(life, 5_000, 19_000)],
  [
    "one of the device's two slots is in use",
    (life) => {
      life.slots = 2;
      otherRun(life, 5_000, 55_000);
    },
  ],
  ["the watcher had another run before", (life) => otherRun(life, 5_000, 19_000, "watcher-1")],
  [
    "it is never pushed, and cancelled in the end",
    (life) => {
      life.history = life.history.filter(
        (entry) => entry.kind !== "seen" || entry.message.case !== "assignment",
      );
      Object.assign(life.rows.runs[0]!, { token: null, claimedAt: null, status: "cancelled" });
    },
  ],
  [
    "it is pending still",
    (life) => {
      life.history = life.history.filter(
        (entry) => entry.kind !== "seen" || entry.message.case !== "assignment",
      );
      Object.assign(life.rows.runs[0]!, {
        token: null,
        claimedAt: null,
        finishedAt: null,
        status: "pending",
      });
      life.rows.events.pop();
    },
  ],
  [
    "its start deadline passed over it",
    (life) => {
      life.history = life.history.filter(
        (entry) => entry.kind !== "seen" || entry.message.case !== "assignment",
      );
      const skipped = { status: "skipped", skipReason: "offline_expired" } as const;
      Object.assign(life.rows.runs[0]!, { token: null, claimedAt: null, ...skipped });
      life.rows.events[1]!.kind = "run.skipped";
    },
  ],
  [
    "it was recorded late, and pushed at once then",
    (life) => {
      life.rows.events[0]!.committedAt = start + dueAt + 9_900;
    },
  ],
];

test.each(noReasons)("a run is late although %s", (_what, change) => {
  const life = lifeOf({ lateMs: 10_000 });
  change(life);
  expect(isBroken(life)).toBe(true);
});

const isAway = ({ at: moment, kind }: Entry) =>
  kind === "seen" && moment > start + 21_000 && moment < start + 29_000;

const reasons: [what: string, change: (life: Life) => void][] = [
  [
    "its device is away",
    (life) => {
      life.history = life.history.filter((entry) => !isAway(entry));
    },
  ],
  [
    "its device has a stream that is to end",
    (life) => {
      life.history.push(seen(21_000, { case: "drain", reason: 1 }));
    },
  ],
  [
    "its device changes streams every few seconds",
    (life) => {
      for (const entry of life.history) {
        if (entry.kind === "seen") entry.stream = `s${Math.floor((entry.at - start) / 3_000)}`;
      }
    },
  ],
  ["its device's only slot is in use", (life) => otherRun(life, 5_000, 28_000)],
  [
    "its device works on what was taken away from it",
    (life) => {
      otherRun(life, 5_000, 19_000);
      const named = { run: "run-2", token: "token-2" };
      life.history.push(
        at(28_000, { kind: "sent", device, stream: "s1", message: { case: "cancelled", ...named } }),
      );
    },
  ],
  [
    "another run of its watcher is active",
    (life) => {
      life.slots = 2;
      otherRun(life, 5_000, 28_000, "watcher-1");
    },
  ],
  ["its device's network is slow", (life) => faultFrom(life, "network_latency", [device], 21_000, 22_000)],
  ["its device's host was stopped", (life) => faultFrom(life, "host_pause", ["host-1"], 10_000, 23_000)],
  ["the database is away", (life) => faultFrom(life, "postgres_outage", ["postgres"], 21_000, 24_000)],
  [
    "the database came back just before",
    (life) => faultFrom(life, "postgres_outage", ["postgres"], 5_000, 22_000),
  ],
  ["some replica was killed", (life) => faultFrom(life, "replica_kill", ["replica-2"], 21_000, 23_000)],
  [
    "some replica is replaced",
    (life) => {
      const replica = { kind: "replica" as const, replica: "replica-1" };
      life.history.push(at(21_000, { ...replica, phase: "stopping" }));
      life.history.push(
        at(22_000, { ...replica, phase: "ended" }),
        at(23_000, { ...replica, phase: "serving" }),
      );
    },
  ],
  [
    "a fault of everybody's is never over",
    (life) => {
      faultFrom(life, "backends_terminated", ["backends"], 21_000, 99_000);
      life.history.pop();
    },
  ],
  [
    "it was never recorded as a run",
    (life) => {
      life.rows.events.shift();
    },
  ],
];

test.each(reasons)("a run may be late while %s", (_what, change) => {
  const life = lifeOf({ lateMs: 10_000 });
  expect(isBroken(life)).toBe(true);
  change(life);
  expect(isBroken(life)).toBe(false);
});

test("slots are full while as many spans are on as there are slots", () => {
  const spans = [
    { from: 0, to: 10 },
    { from: 5, to: 8 },
    { from: 10, to: 12 },
  ];
  expect(fullSpans(spans, 1)).toEqual([
    { from: 0, to: 10 },
    { from: 10, to: 12 },
  ]);
  expect(fullSpans(spans, 2)).toEqual([{ from: 5, to: 8 }]);
  expect(fullSpans(spans, 3)).toEqual([]);
  expect(fullSpans([], 0)).toEqual([{ from: Number.NEGATIVE_INFINITY, to: Number.POSITIVE_INFINITY }]);
});
