import { type Batcher, createBatcher } from "../../batches/batcher.ts";
import { slicesOf } from "../../batches/slices.ts";
import { Refusal, refuse } from "../../errors.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { isFinal, isOfData, mayBeOfOneRow } from "../../store/pg/failures.ts";
import type { WorkKind } from "../../store/work/attempts/active.ts";
import { lateResultsMax } from "../../store/work/attempts/late-results.ts";
import type { AttemptSettlement } from "../../store/work/attempts/settlements.ts";
import type { AgentReport } from "../../store/work/runs/reports.ts";
import * as orgMoves from "../../store/work/service/org-moves.ts";
import type { Logger } from "../../telemetry/log.ts";

/** A device's report of the end of an attempt. Sizes are checked earlier. */
export type Report = {
  orgId: string;
  deviceId: string;
  workId: string;
  attemptToken: string;
  status: "completed" | "failed" | "timeout" | "cancelled";
  output: string;
  isOutputTruncated: boolean;
  exitCode: number | undefined;
  signal: string;
  reason: string;
  durationMs: number | undefined;
  /**
   * Set when the accept may not be stored yet: when the attempt was pushed, and accepted, by the
   * monotonic clock.
   */
  pushedAt?: number;
  startedAt?: number;
  /** For a turn: the snapshot for the conversation's next turn. */
  nextSnapshot?: Uint8Array | undefined;
  /**
   * For a failure: milliseconds until another attempt may start; the failed attempt does not count.
   */
  laterMs?: number;
  /** The agent's report of its work; undefined: the executor reports nothing. */
  agent?: AgentReport | undefined;
};

export type ReportVerdict = {
  /**
   * `superseded`: kept as a late result (R10), as another attempt has the work, or the work has a
   * result.
   */
  verdict: "stored" | "stored_late" | "already_stored" | "superseded" | "unknown";
  windowId: string | null;
};

/** An end decided by Pinion. `isRetryable`: the sender of a turn may send the message again. */
export type Ending = AttemptSettlement & { isRetryable?: boolean };

/** `full`: the work has its maximum of late results, and the report stays at its device. */
export type Answer = ReportVerdict | "full";

/** The answers to a batch of reports, and the announcements for after the commit. */
export type Stored = { answers: readonly Answer[]; tell: () => Promise<void> };

/** How the ends of one kind of work are stored. The functions run in an open transaction. */
export type EndingsOf = {
  noun: WorkKind;
  /** Stores reports of current attempts; a report of a withdrawn attempt is `superseded`. */
  storeCurrent(tx: Db, reports: readonly Report[]): Promise<Stored>;
  /** Stores reports of attempts that were taken away. */
  storeLate(tx: Db, reports: readonly Report[]): Promise<Stored>;
  /** All endings withdraw their attempts, or none does. `tokens`: the current attempts. */
  settle(
    tx: Db,
    endings: readonly Ending[],
  ): Promise<{ tokens: readonly (string | null)[]; tell: () => Promise<void> }>;
};

/**
 * Stores the ends of attempts, in batches: reports of devices, each exactly once (R5, T1) and none
 * dropped (R10), and ends decided by Pinion. A resolved end has been committed and announced. An
 * error that may pass (see isPassing) is rejected, and the call may be repeated. An end that the
 * database refuses does not affect the others of its batch (R9).
 *
 *   device ─▶ queue ─▶ batch ─▶ storeCurrent ──attempt is current──▶ stored
 *                                 └─taken away─▶ storeLate ─▶ stored_late │ superseded │ full
 *   Pinion ─▶ queue ─▶ batch ─▶ settle ──▶ ended, or waiting again
 */
export type Endings = {
  /** Refuses with `invalid_argument` a report that can never be stored. */
  report(report: Report): Promise<ReportVerdict>;
  /** Takes an attempt away. Returns whether the attempt was current. */
  settle(ending: Ending): Promise<boolean>;
  idle(): Promise<void>;
};

/**
 * Reports per transaction. 500 outputs of the largest size are 500 MiB, so a batch is also bounded
 * in characters of outputs and bytes of snapshots.
 */
const reportsPerBatchMax = 500;
const weightPerBatchMax = 16_000_000;
/** Reports after a batch of this size wait: the replicas of a crowd write fewer batches. */
const busyReports = { size: 16, ms: 8 };
/** Maximum waiting reports. Beyond it the device is asked to send the report again. */
const reportsWaitingMax = 20_000;
const endingsPerBatchMax = 500;
const endingsWaitingMax = 50_000;

/**
 * Ends announced in one turn of the event loop: a session fills its freed slot, and viewers are
 * told.
 */
const toldPerTurn = 64;

/** Announces the ends of a batch in slices, after the commit. */
export async function tellEach<End>(
  ends: readonly End[],
  tell: (some: readonly End[]) => void,
): Promise<void> {
  for await (const some of slicesOf(ends, toldPerTurn)) tell(some);
}

const tooMany = (what: string) => () =>
  new Refusal("unavailable", `too many ${what} wait to be stored; send it again`, { retryAfterMs: 1_000 });

type Options = {
  db: Db;
  log: Logger;
  onReports?: (size: number, ms: number) => void;
  onEndings?: (size: number, ms: number) => void;
};

export function createEndings(of: EndingsOf, options: Options): Endings {
  // Completions apart: a batch of nothing else is one short statement
  // (store/work/attempts/completions.ts).
  const [completions, failures] = [createReports(of, options), createReports(of, options)];
  const [withdrawals, ends] = [createSettling(of, options), createSettling(of, options)];

  return {
    async report(report) {
      const reports = report.status === "completed" ? completions : failures;
      let answer: Answer;
      try {
        answer = await reports.add(report);
      } catch (error) {
        answer = await reportAgain(of, options, { report, reports, error });
      }
      if (answer !== "full") {
        // An attempt is unknown behind the fence of a move, too: its device keeps the report.
        if (answer.verdict === "unknown") await orgMoves.requireHere(options.db, report);
        return answer;
      }
      return refuse(
        "invalid_argument",
        `completion: the ${of.noun} has ${lateResultsMax} late results and takes no more; this one stays at its device`,
      );
    },
    settle: (ending) => (ending.action === "withdraw" ? withdrawals : ends).add(ending),
    async idle() {
      await Promise.all([completions, failures, withdrawals, ends].map((batcher) => batcher.idle()));
    },
  };
}

/** Stores a report; undefined `kind`: the attempt is unknown to its session. */
export type Reports = (report: Report, kind: WorkKind | undefined) => Promise<ReportVerdict>;

/**
 * Maximum characters of outputs that wait to be stored. A completion beyond the limit is not
 * answered: its device keeps the completion and sends it again.
 */
const completionBytesWaitingMax = 128 * 1024 * 1024;

/** Reports of runs and turns, within one bound on what waits to be stored. */
export function reportsOf(endings: Readonly<Record<WorkKind, Endings>>): Reports {
  const budget = createBudget(completionBytesWaitingMax);
  return (report, kind) =>
    budget(weightOf(report), () => (kind ? endings[kind].report(report) : reportOfAny(endings, report)));
}

function weightOf({ output, nextSnapshot }: Report): number {
  return output.length + (nextSnapshot?.length ?? 0);
}

async function reportOfAny(
  endings: Readonly<Record<WorkKind, Endings>>,
  report: Report,
): Promise<ReportVerdict> {
  for (const kind of ["run", "turn"] as const) {
    const verdict = await endings[kind].report(report);
    if (verdict.verdict !== "unknown") return verdict;
  }
  return { verdict: "unknown", windowId: null };
}

/**
 * Runs work while the sizes of all running work fit into `max`; refuses more work with
 * `resource_exhausted`.
 */
export function createBudget(max: number): <T>(size: number, work: () => Promise<T>) => Promise<T> {
  let held = 0;
  return (size, work) => {
    if (held + size > max) {
      const message = "too much waits to be stored; send it again";
      return Promise.reject(new Refusal("resource_exhausted", message, { retryAfterMs: 5_000 }));
    }
    held += size;
    const release = () => {
      held -= size;
    };
    const working = work();
    working.then(release, release);
    return working;
  };
}

/**
 * Answers a report that the database refused: the refusal may be a lost race with another writer,
 * and the second try sees what the other wrote.
 */
async function reportAgain(
  of: EndingsOf,
  { db, log }: Options,
  { report, reports, error: first }: { report: Report; reports: Batcher<Report, Answer>; error: unknown },
): Promise<Answer> {
  const subject = { orgId: report.orgId, workId: report.workId, kind: of.noun };
  try {
    if (!isFinal(first)) throw first;
    return await reports.add(report);
  } catch (error) {
    if (isOfData(error) && (await canEndAsFailed(of, db, report))) {
      log.error({ ...subject, err: error }, "the database refuses a completion");
      refuse("invalid_argument", "completion: the database refuses to store it; see the server's log");
    }
    if (mayBeOfOneRow(error))
      log.error({ ...subject, err: error }, "a completion cannot be stored now; its device keeps it");
    throw error;
  }
}

/**
 * Whether the work could end as failed, as it does after an invalid report: otherwise the database
 * refuses more than the report's data or the work's own row (R8). Nothing is stored.
 */
async function canEndAsFailed(of: EndingsOf, db: Db, report: Report): Promise<boolean> {
  const { orgId, deviceId, workId, attemptToken } = report;
  const blank: Report = {
    ...{ orgId, deviceId, workId, attemptToken, status: "failed", output: "", isOutputTruncated: false },
    ...{ exitCode: undefined, signal: "", reason: "invalid", durationMs: undefined },
  };
  const undo = new Error("only tried");
  const tries = (store: (tx: Db) => Promise<unknown>) =>
    transaction(db, async (tx) => {
      await store(tx);
      throw undo;
    }).catch((error: unknown) => error === undo);
  let isLate = false;
  const isStorable = await tries(async (tx) => {
    const { answers } = await of.storeCurrent(tx, [blank]);
    isLate = answers.some((answer) => answer !== "full" && answer.verdict === "superseded");
  });
  return isStorable && (!isLate || (await tries((tx) => of.storeLate(tx, [blank]))));
}

function createReports(of: EndingsOf, { db, onReports }: Options): Batcher<Report, Answer> {
  return createBatcher<Report, Answer>({
    async run(batch) {
      const current = await transaction(db, (tx) => of.storeCurrent(tx, batch));
      await current.tell();
      const answers = [...current.answers];
      const late = answers.flatMap((answer, index) =>
        answer !== "full" && answer.verdict === "superseded" ? [index] : [],
      );
      if (late.length === 0) return answers;
      // In a second transaction, because storeLate locks the work again, and work must be locked
      // before conversations and events.
      const stored = await transaction(db, (tx) =>
        of.storeLate(
          tx,
          batch.filter((_, index) => late.includes(index)),
        ),
      );
      await stored.tell();
      late.forEach((index, place) => {
        answers[index] = stored.answers[place] as Answer;
      });
      return answers;
    },
    itemsMax: reportsPerBatchMax,
    busy: busyReports,
    weight: { of: weightOf, max: weightPerBatchMax },
    queueMax: reportsWaitingMax,
    overflow: tooMany("completions"),
    mayIsolate: mayBeOfOneRow,
    ...(onReports ? { onBatch: onReports } : {}),
  });
}

function createSettling(of: EndingsOf, { db, onEndings }: Options): Batcher<Ending, boolean> {
  return createBatcher<Ending, boolean>({
    async run(batch) {
      const { tokens, tell } = await transaction(db, (tx) => of.settle(tx, distinctOf(batch)));
      await tell();
      const ended = new Set(tokens);
      return batch.map(({ attemptToken }) => ended.has(attemptToken));
    },
    itemsMax: endingsPerBatchMax,
    queueMax: endingsWaitingMax,
    overflow: tooMany("ends"),
    mayIsolate: mayBeOfOneRow,
    ...(onEndings ? { onBatch: onEndings } : {}),
  });
}

/**
 * Without repeats: an attempt may be given back twice at once, by a session's deadline and by the
 * sweep, which does not know of the deadline.
 */
function distinctOf(endings: readonly Ending[]): Ending[] {
  const keyOf = ({ workId, attemptToken, session }: Ending) =>
    `${workId} ${attemptToken} ${session?.epoch} ${session?.sessionId}`;
  return [...new Map(endings.map((ending) => [keyOf(ending), ending])).values()];
}

export const nameOf = (attempt: { workId: string; attemptToken: string | null }) =>
  `${attempt.workId} ${attempt.attemptToken}`;

/** The whole milliseconds since a time by the monotonic clock. */
export function agoMs(at: number | undefined): number | undefined {
  return at === undefined ? undefined : Math.max(0, Math.round(performance.now() - at));
}

/** Each attempt's first report, by name. */
export function firstOfEach<Item extends { workId: string; attemptToken: string | null }>(
  items: readonly Item[],
): Map<string, Item> {
  const first = new Map<string, Item>();
  for (const item of items) if (!first.has(nameOf(item))) first.set(nameOf(item), item);
  return first;
}

/** The verdict of each report's attempt; a repeat of a report stored now gets `already_stored`. */
export function verdictsOf<Verdict extends { verdict: string }>(
  reports: readonly { workId: string; attemptToken: string | null }[],
  verdicts: ReadonlyMap<string, Verdict>,
): Verdict[] {
  const seen = new Set<string>();
  return reports.map((report) => {
    const name = nameOf(report);
    const verdict = verdicts.get(name) as Verdict;
    const isRepeat = seen.has(name);
    seen.add(name);
    const isNew = verdict.verdict === "stored" || verdict.verdict === "stored_late";
    return isRepeat && isNew ? { ...verdict, verdict: "already_stored" } : verdict;
  });
}
