/**
 * Each rule of the checker: a history that passes the rule, and the smallest changes that the rule
 * must notice.
 */
import { expect, test } from "vitest";
import { check } from "../../chaos/checker/check.ts";
import { merge, subtract } from "../../chaos/checker/spans.ts";
import type { Bounds } from "../../chaos/checker/world.ts";
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
const second = 1_000;
/** A whole minute. */
const start = Date.UTC(2026, 0, 1, 12, 0);
const device = "device-1";
const digest = { sha256: "of the output", characters: 6 };

const at = (ms: number, happening: Happening): Entry => ({ at: start + ms, ...happening });

const event = (ms: number, kind: string, run: string, more: Partial<EventRow> = {}): EventRow => ({
  kind,
  org: "north",
  run,
  watcher: "watcher-1",
  rule: null,
  scheduledFor: null,
  committedAt: start + ms,
  ...more,
});

const runRow = (values: Partial<RunRow> & { id: string }): RunRow => ({
  org: "north",
  watcher: "watcher-1",
  device,
  source: "scheduled",
  scheduledFor: null,
  dueAt: start,
  status: "completed",
  token: null,
  claimedAt: null,
  finishedAt: null,
  retryOf: null,
  isReported: false,
  windowId: null,
  skipReason: null,
  reason: "",
  past: [],
  ...values,
});

const sent = (ms: number, message: Extract<Happening, { kind: "sent" }>["message"], stream = "s1") =>
  at(ms, { kind: "sent", device, stream, message });
const seen = (ms: number, message: Extract<Happening, { kind: "seen" }>["message"], stream = "s1") =>
  at(ms, { kind: "seen", device, stream, message });

/**
 * A watcher every 10 s lives for 25 s: at 10 s a run whose first attempt is reaped and whose second
 * attempt is stored, at 20 s a skipped slot; then a manual run that is cancelled.
 */
function goodLife(): { history: Entry[]; rows: Rows } {
  const first = { run: "run-1", token: "token-1" };
  const second_ = { run: "run-1", token: "token-2" };
  const history: Entry[] = [
    at(0, { kind: "device", device, host: "host-1", org: "north", slots: 1 }),
    at(0, { kind: "replica", replica: "replica-1", phase: "serving" }),
    at(1, {
      kind: "call",
      call: 1,
      org: "north",
      request: { method: "createWatcher", device, every: 10, jitterMs: 0, slug: "w" },
    }),
    at(50, { kind: "answer", call: 1, answer: { watcher: "watcher-1" } }),
    sent(100, { case: "hello", held: [] }),
    seen(110, { case: "welcome", deviceId: device, epoch: 1, verdicts: [] }),
    seen(10_050, {
      case: "assignment",
      attempt: 1,
      watcher: "watcher-1",
      deviceId: device,
      prompt: `For ${device}`,
      ...first,
    }),
    sent(10_060, { case: "accept", ...first }),
    sent(17_000, { case: "hello", held: [{ ...first, state: "finished" }] }, "s2"),
    seen(
      17_100,
      { case: "welcome", deviceId: device, epoch: 2, verdicts: [{ ...first, verdict: "abort" }] },
      "s2",
    ),
    seen(
      17_200,
      {
        case: "assignment",
        attempt: 2,
        watcher: "watcher-1",
        deviceId: device,
        prompt: `For ${device}`,
        ...second_,
      },
      "s2",
    ),
    sent(17_210, { case: "accept", ...second_ }, "s2"),
    sent(
      18_000,
      { case: "complete", outcome: "completed", output: digest, isUnary: false, ...second_ },
      "s2",
    ),
    seen(
      18_100,
      { case: "completionAck", verdict: "stored", windowId: "window-1", isUnary: false, ...second_ },
      "s2",
    ),
    at(15_000, {
      kind: "schedules",
      watchers: [{ watcher: "watcher-1", nextSlotAt: start + 20_000, slots: [start + 10_000] }],
    }),
    at(21_000, { kind: "call", call: 2, org: "north", request: { method: "trigger", watcher: "watcher-1" } }),
    at(21_050, { kind: "answer", call: 2, answer: { run: "run-3", runs: ["run-3"] } }),
    at(22_000, { kind: "call", call: 3, org: "north", request: { method: "cancel", run: "run-3" } }),
    at(22_050, { kind: "answer", call: 3, answer: { run: "run-3" } }),
    at(25_000, {
      kind: "call",
      call: 4,
      org: "north",
      request: { method: "setSchedule", watcher: "watcher-1", every: null },
    }),
    at(25_050, { kind: "answer", call: 4, answer: {} }),
    at(30_000, { kind: "sample", silent: [] }),
  ].sort((a, b) => a.at - b.at);
  const rows: Rows = {
    devices: [
      { id: device, org: "north" },
      { id: "device-2", org: "north" },
      { id: "device-3", org: "south" },
    ],
    watchers: [{ id: "watcher-1", org: "north", device, nextSlotAt: null }],
    backlog: [],
    slots: [
      { org: "north", watcher: "watcher-1", scheduledFor: start + 10_000, run: "run-1" },
      { org: "north", watcher: "watcher-1", scheduledFor: start + 20_000, run: "run-2" },
    ],
    runs: [
      runRow({
        id: "run-1",
        scheduledFor: start + 10_000,
        dueAt: start + 10_000,
        token: "token-2",
        claimedAt: start + 17_150,
        finishedAt: start + 18_050,
        isReported: true,
        windowId: "window-1",
        past: [
          {
            attempt: 1,
            token: "token-1",
            claimedAt: start + 10_040,
            endedAt: start + 16_000,
            isReported: false,
          },
        ],
      }),
      runRow({ id: "run-2", scheduledFor: start + 20_000, status: "skipped", skipReason: "overlap" }),
      runRow({
        id: "run-3",
        source: "manual",
        dueAt: start + 21_000,
        status: "cancelled",
        finishedAt: start + 22_020,
      }),
    ],
    late: [],
    windows: [{ id: "window-1", org: "north", watcher: "watcher-1", run: "run-1", output: digest }],
    events: [
      event(10_030, "run.created", "run-1", { scheduledFor: start + 10_000 }),
      event(16_010, "run.retried", "run-1", { rule: "stream_broken" }),
      event(18_060, "run.completed", "run-1"),
      event(20_010, "run.skipped", "run-2", { scheduledFor: start + 20_000 }),
      event(21_020, "run.created", "run-3"),
      event(22_020, "run.cancelled", "run-3"),
    ],
  };
  return { history, rows };
}

const faultOf = (name: FaultKind, target: string) => ({
  kind: "fault" as const,
  fault: 1,
  name,
  targets: [target],
});

type Life = ReturnType<typeof goodLife>;
const broken = ({ history, rows }: Life) => check(history, rows, bounds).map(({ rule }) => rule);
const add = (life: Life, ...entries: Entry[]) => {
  life.history.push(...entries);
  life.history.sort((a, b) => a.at - b.at);
};
const run1 = (life: Life) => life.rows.runs[0]!;

test("a life as it should be passes every rule", () => {
  const { history, rows } = goodLife();
  expect(check(history, rows, bounds)).toEqual([]);
});

const changes: [rule: string, what: string, change: (life: Life) => void][] = [
  [
    "every slot once",
    "a due slot has no row",
    (life) => {
      life.rows.slots.pop();
      life.rows.runs.splice(1, 1);
      life.rows.events = life.rows.events.filter(({ run }) => run !== "run-2");
    },
  ],
  [
    "every slot once",
    "a row is for a moment that is no slot",
    (life) => {
      life.rows.slots[1]!.scheduledFor += second;
      life.rows.runs[1]!.scheduledFor! += second;
    },
  ],
  [
    "every slot once",
    "a slot is recorded after the schedule ended",
    (life) => {
      life.rows.slots.push({
        org: "north",
        watcher: "watcher-1",
        scheduledFor: start + 30_000,
        run: "run-4",
      });
      life.rows.runs.push(
        runRow({ id: "run-4", scheduledFor: start + 30_000, status: "skipped", skipReason: "missed" }),
      );
      life.rows.events.push(event(30_000, "run.skipped", "run-4"));
    },
  ],
  [
    "every slot once",
    "a backfilled slot has no row",
    (life) => {
      add(
        life,
        at(23_000, {
          kind: "call",
          call: 9,
          org: "north",
          request: { method: "backfill", watcher: "watcher-1", start: start - 60_000, end: start - 50_000 },
        }),
        at(23_010, { kind: "answer", call: 9, answer: {} }),
      );
    },
  ],
  [
    "a slot is one row",
    "a slot has two runs",
    (life) => {
      life.rows.runs.push(
        runRow({ id: "run-4", scheduledFor: start + 20_000, status: "skipped", skipReason: "overlap" }),
      );
      life.rows.events.push(event(20_011, "run.skipped", "run-4"));
    },
  ],
  [
    "a slot is one row",
    "a slot names another's run",
    (life) => {
      life.rows.slots[0]!.run = "run-3";
    },
  ],
  [
    "a slot is one row",
    "a skipped slot has no reason",
    (life) => {
      life.rows.runs[1]!.skipReason = null;
    },
  ],
  [
    "a slot is one row",
    "the log tells twice of one slot",
    (life) => {
      life.rows.events.push(event(20_020, "run.skipped", "run-2"));
    },
  ],
  [
    "the schedule moves once per slot",
    "a schedule has passed a slot that it did not record",
    (life) => {
      const look = life.history.find(({ kind }) => kind === "schedules") as Extract<
        Entry,
        { kind: "schedules" }
      >;
      look.watchers[0]!.slots = [];
    },
  ],
  [
    "the schedule moves once per slot",
    "a slot is recorded that the schedule has not come to",
    (life) => {
      const look = life.history.find(({ kind }) => kind === "schedules") as Extract<
        Entry,
        { kind: "schedules" }
      >;
      look.watchers[0]!.slots.push(start + 20_000);
    },
  ],
  [
    "one active run per watcher",
    "a run begins while another is active",
    (life) => {
      const created = life.rows.events.splice(4, 1)[0]!;
      life.rows.events.splice(2, 0, created);
    },
  ],
  [
    "one current attempt per run",
    "an attempt is claimed before the one before it has ended",
    (life) => {
      run1(life).claimedAt = start + 15_000;
    },
  ],
  [
    "one current attempt per run",
    "two attempts have the same token",
    (life) => {
      run1(life).past[0]!.token = "token-2";
    },
  ],
  [
    "a fenced attempt stays fenced",
    "an attempt that was taken away is told to go on",
    (life) => {
      const welcome = life.history.find(({ at }) => at === start + 17_100) as Extract<
        Entry,
        { kind: "seen" }
      >;
      if (welcome.message.case === "welcome") welcome.message.verdicts[0]!.verdict = "continue";
    },
  ],
  [
    "an acknowledgement is true",
    "what was acknowledged is not in the database",
    (life) => {
      run1(life).isReported = false;
    },
  ],
  [
    "an acknowledgement is true",
    "an attempt that had been taken away is stored",
    (life) => {
      add(
        life,
        seen(18_500, {
          case: "completionAck",
          run: "run-1",
          token: "token-1",
          verdict: "stored",
          windowId: "",
          isUnary: false,
        }),
      );
    },
  ],
  [
    "an acknowledgement is true",
    "a result is stored twice",
    (life) => {
      add(
        life,
        seen(18_500, {
          case: "completionAck",
          run: "run-1",
          token: "token-2",
          verdict: "stored",
          windowId: "",
          isUnary: true,
        }),
      );
    },
  ],
  [
    "an acknowledgement is true",
    "a result that is stored was called superseded",
    (life) => {
      add(
        life,
        seen(18_500, {
          case: "completionAck",
          run: "run-1",
          token: "token-2",
          verdict: "superseded",
          windowId: "",
          isUnary: true,
        }),
      );
    },
  ],
  [
    "an acknowledgement is true",
    "a result of an attempt that there was is unknown",
    (life) => {
      add(
        life,
        seen(18_500, {
          case: "completionAck",
          run: "run-1",
          token: "token-1",
          verdict: "unknown",
          windowId: "",
          isUnary: true,
        }),
      );
    },
  ],
  [
    "an acknowledgement is true",
    "the stored bytes are others",
    (life) => {
      life.rows.windows[0]!.output = { sha256: "of something else", characters: 6 };
    },
  ],
  [
    "an acknowledgement is true",
    "the run ended otherwise than was reported",
    (life) => {
      run1(life).status = "failed";
      run1(life).windowId = null;
      life.rows.windows = [];
    },
  ],
  [
    "no result is lost",
    "a result was sent, never answered, and is gone",
    (life) => {
      add(
        life,
        sent(12_000, {
          case: "complete",
          outcome: "completed",
          output: digest,
          isUnary: false,
          run: "run-1",
          token: "token-0",
        }),
      );
    },
  ],
  [
    "one window per completed run",
    "a completed run has no window",
    (life) => {
      life.rows.windows = [];
    },
  ],
  [
    "one window per completed run",
    "a run that did not complete has a window",
    (life) => {
      life.rows.windows.push({
        id: "window-2",
        org: "north",
        watcher: "watcher-1",
        run: "run-3",
        output: digest,
      });
    },
  ],
  [
    "nothing crosses a tenant or a device",
    "a device is given another's work",
    (life) => {
      run1(life).device = "device-2";
    },
  ],
  [
    "nothing crosses a tenant or a device",
    "a run that is pinned to no device goes to a device that is no fleet worker",
    (life) => {
      life.rows.watchers[0]!.device = null;
    },
  ],
  [
    "nothing crosses a tenant or a device",
    "a run that is pinned to no device goes to a fleet worker of another tenant",
    (life) => {
      life.rows.watchers[0]!.device = null;
      Object.assign(life.rows.devices[0]!, { org: "south", isWorker: true });
    },
  ],
  [
    "nothing crosses a tenant or a device",
    "a device sees another tenant's run",
    (life) => {
      run1(life).org = "south";
    },
  ],
  [
    "nothing crosses a tenant or a device",
    "a device is welcomed as another",
    (life) => {
      add(life, seen(19_000, { case: "welcome", deviceId: "device-2", epoch: 3, verdicts: [] }));
    },
  ],
  [
    "nothing crosses a tenant or a device",
    "an attempt is pushed that was never committed",
    (life) => {
      add(
        life,
        seen(19_000, {
          case: "assignment",
          run: "run-1",
          token: "token-9",
          attempt: 3,
          watcher: "watcher-1",
          deviceId: device,
          prompt: device,
        }),
      );
    },
  ],
  [
    "nothing crosses a tenant or a device",
    "a list shows another tenant's run",
    (life) => {
      add(
        life,
        at(23_000, { kind: "call", call: 9, org: "south", request: { method: "listRuns" } }),
        at(23_010, { kind: "answer", call: 9, answer: { runs: ["run-1"] } }),
      );
    },
  ],
  [
    "nothing stays out without an owner",
    "an attempt of a silent device is left",
    (life) => {
      const silent = [{ run: "run-1", token: "token-2", deviceSilentMs: 7_000, attemptSilentMs: 7_000 }];
      add(life, at(29_000, { kind: "sample", silent }));
    },
  ],
  [
    "nothing stays out without an owner",
    "an attempt that nobody beats for is left",
    (life) => {
      const silent = [{ run: "run-1", token: "token-2", deviceSilentMs: 500, attemptSilentMs: 11_000 }];
      add(life, at(29_000, { kind: "sample", silent }));
    },
  ],
  [
    "nothing is reaped within the grace",
    "an attempt is reaped just after the database came back",
    (life) => {
      const outage = faultOf("postgres_outage", "postgres");
      add(life, at(11_000, { ...outage, phase: "begin" }), at(14_500, { ...outage, phase: "end" }));
    },
  ],
  [
    "late by at most the sweep",
    "a run is left to a device that could have taken it",
    (life) => {
      const acks = [18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29];
      add(life, ...acks.map((s) => seen(s * second + 500, { case: "heartbeatAck" }, "s2")));
      const values = { status: "cancelled", dueAt: start + 22_030, finishedAt: start + 29_000 } as const;
      life.rows.runs.push(runRow({ id: "run-4", source: "manual", ...values }));
      life.rows.events.push(event(22_030, "run.created", "run-4"), event(29_000, "run.cancelled", "run-4"));
    },
  ],
  [
    "an answer is true",
    "a run that was triggered is not there",
    (life) => {
      add(
        life,
        at(23_000, {
          kind: "call",
          call: 9,
          org: "north",
          request: { method: "trigger", watcher: "watcher-1" },
        }),
        at(23_010, { kind: "answer", call: 9, answer: { run: "run-9" } }),
      );
    },
  ],
  [
    "an answer is true",
    "a run that was cancelled goes on",
    (life) => {
      life.rows.runs[2]!.status = "running";
    },
  ],
  [
    "no device gives up",
    "a device has ended its connection for good",
    (life) => {
      add(life, at(23_000, { kind: "gaveUp", device, error: "DeviceError: refused" }));
    },
  ],
  [
    "everything ends",
    "a run is left",
    (life) => {
      life.rows.runs.push(runRow({ id: "run-5", status: "pending", source: "manual" }));
      life.rows.events.push(event(24_000, "run.created", "run-5"));
    },
  ],
  [
    "everything ends",
    "a slot waits for ever",
    (life) => {
      life.rows.backlog.push({ watcher: "watcher-1", scheduledFor: start + 10_000 });
    },
  ],
  [
    "a finished slot's program does not run again",
    "a program begins after its device has sent the slot's completed result",
    (life) => {
      add(life, at(18_500, { kind: "work", device, phase: "begun", run: "run-1", token: "token-1" }));
    },
  ],
  [
    "a wrong clock decides nothing",
    "a slot is skipped by a wrong clock",
    (life) => {
      life.rows.events[3]!.isByWrongClock = true;
    },
  ],
  [
    "a wrong clock decides nothing",
    "an attempt is taken away by a wrong clock",
    (life) => {
      life.rows.events[1]!.isByWrongClock = true;
    },
  ],
  [
    "everything ends",
    "a device holds a result still",
    (life) => {
      add(life, at(29_000, { kind: "held", device, attempts: [{ run: "run-1", token: "token-2" }] }));
    },
  ],
];

test("a run that is pinned to no device may go to any fleet worker of its org", () => {
  const life = goodLife();
  life.rows.watchers[0]!.device = null;
  life.rows.devices[0]!.isWorker = true;
  for (const run of life.rows.runs) run.device = "device-2";
  expect(check(life.history, life.rows, bounds)).toEqual([]);
});

test.each(changes)("%s: %s", (rule, _what, change) => {
  const life = goodLife();
  change(life);
  expect(broken(life)).toContain(rule);
});

const finishedAt = (ms: number, token: string) =>
  at(ms, { kind: "work", device, phase: "finished", run: "run-1", token });

test("a program that finished has its result stored, late, held, or lost with its process before it was on the disk", () => {
  const stored = goodLife();
  add(stored, finishedAt(18_020, "token-2"));
  expect(broken(stored)).toEqual([]);

  const late = goodLife();
  add(late, finishedAt(16_500, "token-1"));
  expect(broken(late)).toEqual(["a finished program's result is kept"]);
  late.rows.late.push({ run: "run-1", token: "token-1" });
  expect(broken(late)).toEqual([]);

  const killed = goodLife();
  add(killed, finishedAt(16_500, "token-1"), at(16_600, { kind: "host", host: "host-1", phase: "killed" }));
  expect(broken(killed)).not.toContain("a finished program's result is kept");

  const killedLater = goodLife();
  add(
    killedLater,
    finishedAt(12_000, "token-1"),
    at(16_600, { kind: "host", host: "host-1", phase: "killed" }),
  );
  expect(broken(killedLater)).toContain("a finished program's result is kept");
  // During the full disk, the result was in memory.
  add(
    killedLater,
    at(11_000, { ...faultOf("disk_full", "host-1"), phase: "begin" }),
    at(15_000, { ...faultOf("disk_full", "host-1"), phase: "end" }),
  );
  expect(broken(killedLater)).not.toContain("a finished program's result is kept");
});

test("a child program may be ended between its last line and its exit, and a handler may not", () => {
  const life = (isProgram: boolean, toldMs: number) => {
    const one = goodLife();
    const told = { case: "cancel" as const, reason: "not yours any more", run: "run-1", token: "token-1" };
    add(
      one,
      at(16_500, {
        ...{ kind: "work", device, phase: "finished", run: "run-1", token: "token-1" },
        ...(isProgram ? { isProgram } : {}),
      }),
      seen(toldMs, told),
    );
    return broken(one);
  };
  expect(life(true, 16_600)).not.toContain("a finished program's result is kept");
  expect(life(false, 16_600)).toContain("a finished program's result is kept");
  expect(life(true, 16_440)).not.toContain("a finished program's result is kept");
  expect(life(true, 16_400)).toContain("a finished program's result is kept");
});

/** The trigger's run is lost, with its answers. */
function lifeWithFailover(): Life {
  const life = goodLife();
  life.rows.runs = life.rows.runs.filter(({ id }) => id !== "run-3");
  life.rows.events = life.rows.events.filter(({ run }) => run !== "run-3");
  return life;
}
const failover = (from: number, to: number) => [
  at(from, { ...faultOf("database_failover", "postgres"), phase: "begin" }),
  at(to, { ...faultOf("database_failover", "postgres"), phase: "end" }),
];

test("a failover may undo what was answered meanwhile, and nothing else", () => {
  expect(broken(lifeWithFailover())).toContain("an answer is true");
  const forgiven = lifeWithFailover();
  add(forgiven, ...failover(20_900, 22_500));
  expect(broken(forgiven)).toEqual([]);
  const earlier = lifeWithFailover();
  add(earlier, ...failover(19_000, 20_900));
  expect(broken(earlier)).toContain("an answer is true");
});

test("an edit of a schedule during a failover is in force or not", () => {
  const life = goodLife();
  // The schedule goes on after its end was answered.
  life.rows.slots.push({ org: "north", watcher: "watcher-1", scheduledFor: start + 30_000, run: "run-4" });
  life.rows.runs.push(
    runRow({ id: "run-4", scheduledFor: start + 30_000, status: "skipped", skipReason: "missed" }),
  );
  life.rows.events.push(event(30_000, "run.skipped", "run-4"));
  expect(broken(life)).toContain("every slot once");
  add(life, ...failover(24_900, 26_000));
  expect(broken(life)).toEqual([]);
});

test("a backfill that was answered during a failover may be undone, and no other", () => {
  const life = goodLife();
  const request = { method: "backfill" as const, watcher: "watcher-1", start: start - 20_000, end: start };
  add(
    life,
    at(21_000, { kind: "call", call: 9, org: "north", request }),
    at(21_100, { kind: "answer", call: 9, answer: {} }),
  );
  expect(broken(life)).toContain("every slot once");
  add(life, ...failover(20_900, 22_500));
  expect(broken(life)).not.toContain("every slot once");
});

test("a failover does not excuse the loss of a finished program's result; a result may come back late", () => {
  const life = goodLife();
  const lost = { run: "run-9", token: "token-9" };
  add(
    life,
    ...failover(20_900, 22_500),
    seen(21_100, {
      ...{ case: "assignment", attempt: 1, watcher: "watcher-1", deviceId: device, prompt: `For ${device}` },
      ...lost,
    }),
    at(21_500, { kind: "work", device, phase: "finished", ...lost }),
    sent(21_600, { case: "complete", outcome: "completed", output: digest, isUnary: false, ...lost }),
    seen(21_700, { case: "completionAck", verdict: "stored", windowId: "window-9", isUnary: false, ...lost }),
  );
  expect(broken(life)).toContain("a finished program's result is kept");
  life.rows.late.push(lost);
  expect(broken(life)).toEqual([]);
});

test("a result of a lost run may be unknown once, however late the device asks, and not in the end", () => {
  const life = goodLife();
  const lost = { run: "run-9", token: "token-9" };
  const acknowledged = (ms: number, verdict: "unknown" | "superseded") =>
    seen(ms, { case: "completionAck", verdict, windowId: "", isUnary: false, ...lost });
  add(
    life,
    ...failover(20_900, 22_500),
    seen(21_100, {
      ...{ case: "assignment", attempt: 1, watcher: "watcher-1", deviceId: device, prompt: `For ${device}` },
      ...lost,
    }),
    sent(21_600, { case: "complete", outcome: "completed", output: digest, isUnary: false, ...lost }),
    // Later than any message of the database that is gone.
    acknowledged(60_000, "unknown"),
  );
  expect(broken(life)).toContain("an acknowledgement is true");
  add(life, acknowledged(61_000, "superseded"));
  life.rows.late.push(lost);
  expect(broken(life)).toEqual([]);
  // Of a run that no failover lost, no answer is unknown.
  life.history = life.history.filter((entry) => entry.kind !== "fault");
  expect(broken(life)).toContain("an acknowledgement is true");
});

test("what was under way when the clock jumped may still be decided", () => {
  const life = goodLife();
  life.rows.events[3]!.isByWrongClock = true;
  add(life, at(19_500, { ...faultOf("database_clock", "the database's clock"), phase: "begin" }));
  expect(broken(life)).not.toContain("a wrong clock decides nothing");
  // The transaction of a skip may end long after its decision.
  const slow = goodLife();
  Object.assign(slow.rows.events[3]!, { isByWrongClock: true, committedAt: start + 24_000 });
  add(slow, at(20_500, { ...faultOf("database_clock", "the database's clock"), phase: "begin" }));
  expect(broken(slow)).toContain("a wrong clock decides nothing");
  slow.rows.runs.find(({ id }) => id === "run-2")!.finishedAt = start + 20_400;
  expect(broken(slow)).not.toContain("a wrong clock decides nothing");
});

test("an attempt's program runs once", () => {
  const life = goodLife();
  add(life, finishedAt(18_020, "token-2"), finishedAt(18_030, "token-2"));
  expect(broken(life)).toEqual(["a finished program's result is kept"]);
});

test("a result that was sent while the disk was full may be gone with its process", () => {
  const life = goodLife();
  const full = faultOf("disk_full", "host-1");
  add(
    life,
    at(11_000, { ...full, phase: "begin" }),
    sent(12_000, {
      case: "complete",
      outcome: "completed",
      output: digest,
      isUnary: false,
      run: "run-1",
      token: "token-1",
    }),
    at(13_000, { ...full, phase: "end" }),
  );
  // The first attempt's verdict in the life is "superseded"; without this entry, the result has no
  // answer.
  life.history = life.history.filter(({ at }) => at !== start + 17_100);
  expect(broken(life)).toEqual([]);
});

test("a result that a device still holds is not lost, only late", () => {
  const life = goodLife();
  life.history = life.history.filter(({ at }) => at !== start + 18_100);
  add(life, at(29_000, { kind: "held", device, attempts: [{ run: "run-1", token: "token-2" }] }));
  expect(broken(life)).toEqual(["everything ends"]);
});

test("while nobody can reap, an attempt may stay out for longer", () => {
  const life = goodLife();
  const silent = [{ run: "run-1", token: "token-2", deviceSilentMs: 7_000, attemptSilentMs: 7_000 }];
  add(
    life,
    at(20_500, { kind: "replica", replica: "replica-1", phase: "ended" }),
    at(26_000, { kind: "replica", replica: "replica-1", phase: "serving" }),
    at(29_000, { kind: "sample", silent }),
  );
  expect(broken(life)).toEqual([]);
});

test("spans are joined and cut as spans", () => {
  const spans = merge([
    { from: 5, to: 8 },
    { from: 0, to: 3 },
    { from: 2, to: 4 },
  ]);
  expect(spans).toEqual([
    { from: 0, to: 4 },
    { from: 5, to: 8 },
  ]);
  expect(subtract(spans, [{ from: 1, to: 6 }])).toEqual([
    { from: 0, to: 1 },
    { from: 6, to: 8 },
  ]);
});
