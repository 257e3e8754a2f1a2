import type { Answer, AttemptName, Call, Entry, SeenMessage, SentMessage } from "../history.ts";
import { pastAttemptsMax, type Rows, type RunRow } from "../rows.ts";
import { lossesOf, mayBeOfBefore } from "./losses.ts";
import type { Span } from "./spans.ts";

/** Bounds of the rules, in milliseconds. */
export type Bounds = {
  ttlMs: number;
  silentAttemptMs: number;
  /** Maximum delay of a reaper beyond its limits, on a busy machine. */
  slackMs: number;
  /** Between two sweeps of a replica for changes without a notification. */
  sweepMs: number;
  /**
   * Maximum delay of a push beyond the sweep, on a busy machine that answers heartbeats in time.
   */
  pushSlackMs: number;
};

/** A violation of a promise, and the lines of the history as evidence. */
export type Violation = { rule: string; what: string; lines: Entry[] };

export type Sent = { at: number; device: string; stream: string; message: SentMessage };
export type Seen = { at: number; device: string; stream: string; message: SeenMessage };

/** An attempt in the database's view. */
export type KnownAttempt = {
  token: string;
  run: RunRow;
  claimedAt: number;
  /** From the row; undefined while the attempt is out. */
  endedAt: number | undefined;
  /** The moment when the attempt's end became visible to others; undefined if unknown. */
  fencedAt: number | undefined;
  isReported: boolean;
  isLast: boolean;
};

/** An operation, from its first try to its answer. */
export type Operation = {
  org: string;
  request: Call;
  sentAt: number;
  answeredAt: number | undefined;
  answer: Answer | undefined;
};

/** The history and the rows, with indexes for the rules. */
export type World = {
  history: readonly Entry[];
  rows: Rows;
  bounds: Bounds;
  sent: Sent[];
  seen: Seen[];
  runs: ReadonlyMap<string, RunRow>;
  attempts: ReadonlyMap<string, KnownAttempt>;
  operations: Operation[];
  orgOfDevice: ReadonlyMap<string, string>;
  hostOfDevice: ReadonlyMap<string, string>;
  /** The number of attempts that a device takes at once. */
  slotsOfDevice: ReadonlyMap<string, number>;
  /** Failovers that lose commits; see losses.ts. */
  losses: readonly Span[];
  /** Whether a run or an attempt may have been lost in a failover: devices first saw it then. */
  isUndone: (name: string) => boolean;
};

const attemptEnds = new Set(["run.retried", "run.withdrawn"]);
const runEnds = new Set(["run.completed", "run.failed", "run.timeout", "run.cancelled"]);

export function makeWorld(history: readonly Entry[], rows: Rows, bounds: Bounds): World {
  const sent: Sent[] = [];
  const seen: Seen[] = [];
  const orgOfDevice = new Map(rows.devices.map(({ id, org }) => [id, org]));
  const hostOfDevice = new Map<string, string>();
  const slotsOfDevice = new Map<string, number>();
  const operations = new Map<number, Operation>();
  for (const entry of history) {
    if (entry.kind === "sent") sent.push(entry);
    else if (entry.kind === "seen") seen.push(entry);
    else if (entry.kind === "device") {
      hostOfDevice.set(entry.device, entry.host);
      slotsOfDevice.set(entry.device, entry.slots);
    } else if (entry.kind === "call") {
      const { org, request, at } = entry;
      operations.set(entry.call, { org, request, sentAt: at, answeredAt: undefined, answer: undefined });
    } else if (entry.kind === "answer") {
      const operation = operations.get(entry.call);
      if (operation) Object.assign(operation, { answeredAt: entry.at, answer: entry.answer });
    }
  }
  const losses = lossesOf(history);
  return {
    history,
    rows,
    bounds,
    sent,
    seen,
    runs: new Map(rows.runs.map((run) => [run.id, run])),
    attempts: findAttempts(rows),
    operations: [...operations.values()],
    orgOfDevice,
    hostOfDevice,
    slotsOfDevice,
    ...{ losses, isUndone: undoneBy(losses, seen) },
  };
}

function undoneBy(losses: readonly Span[], seen: readonly Seen[]): World["isUndone"] {
  const firstSeen = new Map<string, number>();
  for (const { at, message } of losses.length > 0 ? seen : []) {
    for (const { run, token } of namesOf(message)) {
      for (const name of [run, token]) if (!firstSeen.has(name)) firstSeen.set(name, at);
    }
  }
  return (name) => mayBeOfBefore({ losses }, firstSeen.get(name) ?? Number.NEGATIVE_INFINITY);
}

function findAttempts(rows: Rows): Map<string, KnownAttempt> {
  const ends = new Map<string, number[]>();
  for (const { kind, run, committedAt } of rows.events) {
    if (!run || !(attemptEnds.has(kind) || runEnds.has(kind))) continue;
    const list = ends.get(run);
    if (list) list.push(committedAt);
    else ends.set(run, [committedAt]);
  }
  const attempts = new Map<string, KnownAttempt>();
  for (const run of rows.runs) {
    const moments = ends.get(run.id) ?? [];
    const isWhole = run.past.length < pastAttemptsMax;
    // The log knows nothing of an attempt that was lost in a failover.
    const told = run.past.filter(({ isRestored }) => !isRestored);
    for (const attempt of run.past) {
      const { token, claimedAt, endedAt, isReported } = attempt;
      const index = told.indexOf(attempt);
      const fencedAt = isWhole && index >= 0 ? moments[index] : undefined;
      attempts.set(token, { token, run, claimedAt, endedAt, fencedAt, isReported, isLast: false });
    }
    if (run.token === null) continue;
    attempts.set(run.token, {
      token: run.token,
      run,
      claimedAt: run.claimedAt ?? run.dueAt,
      endedAt: run.finishedAt ?? undefined,
      fencedAt: isWhole ? moments[told.length] : undefined,
      isReported: run.isReported,
      isLast: true,
    });
  }
  return attempts;
}

/**
 * Maximum number of shown entries per subject. The subject's own entries come first; of too many
 * the first and the last are shown.
 */
const linesMax = 40;
/** Faults that began or ended within this time of the shown messages are shown, too. */
const aroundMs = 3_000;

/** The lines of the history about a run, an attempt, a watcher or a device. */
export function linesOf(
  world: World,
  subject: Partial<AttemptName> & { watcher?: string; device?: string; from?: number; to?: number },
): Entry[] {
  const isIt = (entry: Entry): boolean => {
    if (subject.from !== undefined && entry.at < subject.from) return false;
    if (subject.to !== undefined && entry.at > subject.to) return false;
    switch (entry.kind) {
      case "sent":
      case "seen": {
        if (entry.message.case === "heartbeat" || entry.message.case === "heartbeatAck") return false;
        if (subject.device !== undefined) return entry.device === subject.device;
        return namesOf(entry.message).some(
          ({ run, token }) => run === subject.run && (subject.token === undefined || token === subject.token),
        );
      }
      case "work":
        return entry.run === subject.run;
      case "call":
        return (
          ("watcher" in entry.request && entry.request.watcher === subject.watcher) ||
          ("run" in entry.request && entry.request.run === subject.run)
        );
      case "answer":
        return subject.run !== undefined && entry.answer.run === subject.run;
      default:
        return false;
    }
  };
  const lines = world.history.filter(isIt);
  const [first, last] = [lines[0]?.at ?? subject.from, lines.at(-1)?.at ?? subject.to];
  const around = world.history.filter(
    ({ kind, at }) =>
      (kind === "fault" || kind === "host" || kind === "replica") &&
      first !== undefined &&
      last !== undefined &&
      at >= first - aroundMs &&
      at <= last + aroundMs,
  );
  const own = ends(lines, linesMax);
  return [...own, ...ends(around, linesMax - own.length)].sort((a, b) => a.at - b.at);
}

/** The first and the last of too many. */
function ends(entries: readonly Entry[], max: number): Entry[] {
  if (entries.length <= max) return [...entries];
  const first = Math.floor(max / 2);
  return [...entries.slice(0, first), ...entries.slice(entries.length - (max - first))];
}

/** The attempts named by a message. */
export function namesOf(message: SentMessage | SeenMessage): AttemptName[] {
  if (message.case === "hello") return message.held;
  if (message.case === "welcome") return message.verdicts;
  return "token" in message ? [message] : [];
}
