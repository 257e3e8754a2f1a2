import { type Batcher, createBatcher } from "../batcher.ts";
import { Refusal, refuse } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type Db, isFinal, mayBeOfOneRow, transaction } from "../store/pg/database.ts";
import { storableText } from "../store/pg/storable.ts";
import * as attempts from "../store/work/attempts.ts";
import * as lateResults from "../store/work/late-results.ts";
import type { AgentReport } from "../store/work/reports.ts";
import * as reports from "../store/work/reports.ts";
import {
  type FailurePolicy,
  findVerdicts,
  type Settled,
  type Settlement,
  settle,
} from "../store/work/settlements.ts";
import { problemsOf } from "./answers.ts";
import type { Doorbell } from "./doorbell.ts";
import { appendLate, appendSettled } from "./settle.ts";

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
   * `superseded`: kept as a late result (R10), as another attempt has the run, or the run has a
   * result.
   */
  verdict: "stored" | "stored_late" | "already_stored" | "superseded" | "unknown";
  windowId: string | null;
};

/**
 * Stores reports, each exactly once (R5), and drops none (R10). A resolved report has been
 * committed. `report` refuses with `invalid_argument` a report that can never be stored, and
 * rejects with errors that may pass (see isPassing).
 *
 *   device ─▶ queue ─▶ batch ─▶ settle ──attempt is current──▶ stored
 *                                 └─taken away─▶ storeLate ─▶ stored_late │ superseded
 */
export type Completer = {
  report(report: Report): Promise<ReportVerdict>;
  idle(): Promise<void>;
};

/**
 * Reports per transaction. 500 outputs of the largest size are 500 MiB, so a batch is also bounded
 * in characters.
 */
const reportsPerBatchMax = 500;
const charactersPerBatchMax = 16_000_000;
/** Maximum waiting reports. Beyond it the device is asked to send the report again. */
const reportsWaitingMax = 20_000;

export function createCompleter(options: {
  db: Db;
  policy: FailurePolicy;
  doorbell: Doorbell;
  log: Logger;
  onBatch?: (size: number, ms: number) => void;
}): Completer {
  const { db, policy, doorbell } = options;

  async function store(reports: Report[]): Promise<ReportVerdict[]> {
    const { verdicts, settled } = await transaction(db, (tx) => storeCurrent(tx, reports, policy));
    doorbell.settled(settled);
    const late = verdicts.flatMap(({ verdict }, index) => (verdict === "superseded" ? [index] : []));
    if (late.length === 0) return verdicts;
    // In a second transaction, because storeLate locks runs again, and runs must be locked before
    // the events.
    const lateReports = late.map((index) => reports[index]!);
    const stored = await transaction(db, (tx) => storeLate(tx, lateReports, policy));
    doorbell.settled(stored.settled);
    doorbell.kept(stored.kept);
    late.forEach((index, place) => {
      verdicts[index] = stored.verdicts[place]!;
    });
    return verdicts;
  }

  async function storeEach(reports: Report[]): Promise<(ReportVerdict | NotNow)[]> {
    try {
      return await store(reports);
    } catch (error) {
      if (!mayBeOfOneRow(error)) throw error;
      if (reports.length === 1) {
        const isLost = isFinal(error);
        options.log.error(
          { err: error, runId: reports[0]!.workId },
          isLost
            ? "the database refuses a completion"
            : "a completion cannot be stored now; its device keeps it",
        );
        return [isLost ? refused : { error }];
      }
      // R9: a report that the database refuses must not block the others.
      const half = Math.ceil(reports.length / 2);
      // One half after another: a large batch must not take every connection during the search.
      const first = await storeEach(reports.slice(0, half));
      return [...first, ...(await storeEach(reports.slice(half)))];
    }
  }

  const batcher: Batcher<Report, ReportVerdict | NotNow> = createBatcher({
    async run(reports) {
      const verdicts: (ReportVerdict | NotNow)[] = [];
      for (const part of bySize(reports)) verdicts.push(...(await storeEach(part)));
      return verdicts;
    },
    itemsMax: reportsPerBatchMax,
    queueMax: reportsWaitingMax,
    overflow: () =>
      new Refusal("unavailable", "too many completions wait to be stored; send it again", {
        retryAfterMs: 1_000,
      }),
    ...(options.onBatch ? { onBatch: options.onBatch } : {}),
  });

  return {
    async report(report) {
      const verdict = await batcher.add(report);
      if ("error" in verdict) throw verdict.error;
      if (verdict === refused) {
        refuse("invalid_argument", "completion: the database refuses to store it; see the server's log");
      }
      if (verdict === full) {
        refuse(
          "invalid_argument",
          `completion: the run has ${lateResults.lateResultsMax} late results and takes no more; this one stays at its device`,
        );
      }
      return verdict;
    },
    idle: () => batcher.idle(),
  };
}

/** A report that could not be stored for an external reason: the device sends the report again. */
type NotNow = { error: unknown };

/** Marks a report that the database will never accept; used in this file only. */
const refused: ReportVerdict = { verdict: "unknown", windowId: null };
/** Marks a late report beyond its run's maximum of late results; used in this file only. */
const full: ReportVerdict = { verdict: "unknown", windowId: null };

/** Splits a batch whose outputs together are too large for one statement. */
function bySize(reports: Report[]): Report[][] {
  const parts: Report[][] = [];
  let characters = Number.POSITIVE_INFINITY;
  for (const report of reports) {
    if (characters + report.output.length > charactersPerBatchMax) {
      parts.push([]);
      characters = 0;
    }
    parts.at(-1)!.push(report);
    characters += report.output.length;
  }
  return parts;
}

const nameOf = (attempt: { workId: string; attemptToken: string | null }) =>
  `${attempt.workId} ${attempt.attemptToken}`;

const nameOfSettled = ({ runId, attemptToken }: Settled) => nameOf({ workId: runId, attemptToken });

/** Each attempt's first report. */
function distinctOf(reports: readonly Report[]): Report[] {
  const distinct = new Map<string, Report>();
  for (const report of reports) if (!distinct.has(nameOf(report))) distinct.set(nameOf(report), report);
  return [...distinct.values()];
}

/** The verdict of each report's attempt; a repeat within `reports` gets `already_stored`. */
function verdictsOf(
  reports: readonly Report[],
  verdicts: ReadonlyMap<string, ReportVerdict>,
): ReportVerdict[] {
  const seen = new Set<string>();
  return reports.map((report) => {
    const name = nameOf(report);
    const verdict = verdicts.get(name)!;
    const isRepeat = seen.has(name);
    seen.add(name);
    const isNew = verdict.verdict === "stored" || verdict.verdict === "stored_late";
    return isRepeat && isNew ? { ...verdict, verdict: "already_stored" } : verdict;
  });
}

/**
 * Stores reports of current attempts in the caller's transaction; a repeated report is stored once
 * and answered twice. Reports of attempts that were taken away get `superseded`, and go to {@link
 * storeLate}.
 */
export async function storeCurrent(
  tx: Db,
  asked: readonly Report[],
  policy: FailurePolicy,
): Promise<{ verdicts: ReportVerdict[]; settled: Settled[] }> {
  const distinct = new Map(distinctOf(asked).map((report) => [nameOf(report), report]));
  await checkAnswers(tx, distinct);
  const settlements = [...distinct.values()].map(settlementOf);
  const settled = await settle(tx, settlements, policy);
  const verdicts = new Map<string, ReportVerdict>();
  for (const run of settled) verdicts.set(nameOfSettled(run), { verdict: "stored", windowId: run.windowId });

  const rest = [...distinct.values()].filter((report) => !verdicts.has(nameOf(report)));
  // A separate statement, to see the writes of transactions that the settlement waited for; before
  // the events, whose lock is the org's.
  const past = await findVerdicts(tx, rest);
  await reports.store(
    tx,
    settled.flatMap((run) => endedReportOf(run, distinct.get(nameOfSettled(run))?.agent)),
  );
  await appendSettled(tx, settlements, settled, { quotas: policy.quotas });
  rest.forEach((report, index) => {
    verdicts.set(nameOf(report), past[index]!);
  });

  return { settled, verdicts: verdictsOf(asked, verdicts) };
}

/**
 * Stores reports of attempts that were taken away, in the caller's transaction (late-results.ts).
 */
export async function storeLate(
  tx: Db,
  asked: readonly Report[],
  policy: FailurePolicy,
): Promise<{ verdicts: ReportVerdict[]; settled: Settled[]; kept: lateResults.KeptResult[] }> {
  const distinct = new Map(distinctOf(asked).map((report) => [nameOf(report), report]));
  await checkAnswers(tx, distinct, { isLate: true });
  const settlements = [...distinct.values()].map(settlementOf);
  const late = [...distinct.values()].map((report) => ({
    ...report,
    ...textsOf(report),
    answer: report.agent,
  }));
  const { verdicts, settled, kept } = await lateResults.store(tx, late, policy);
  await reports.store(
    tx,
    settled.flatMap((run) => endedReportOf(run, distinct.get(nameOfSettled(run))?.agent)),
  );
  await appendLate(tx, settlements, settled, kept, { quotas: policy.quotas });
  const byName = new Map(
    late.map((report, index) => {
      const { verdict, windowId } = verdicts[index]!;
      return [nameOf(report), verdict === "full" ? full : { verdict, windowId }];
    }),
  );
  return { settled, kept, verdicts: verdictsOf(asked, byName) };
}

/** Fails the run of an answer that does not match its watcher's schema; the answer is kept. */
async function checkAnswers(
  tx: Db,
  distinct: Map<string, Report>,
  options: { isLate?: boolean } = {},
): Promise<void> {
  const answers = [...distinct.values()].filter(
    ({ status, agent }) => status === "completed" && agent?.structured !== undefined,
  );
  const schemas = await attempts.findSchemas(tx, answers, options);
  for (const report of answers) {
    const schema = schemas.get(report.workId);
    const problems = schema && problemsOf(report.agent!.structured, schema);
    if (!problems) continue;
    const attention = [...new Set([...report.agent!.attention, "schema"])];
    distinct.set(nameOf(report), {
      ...report,
      status: "failed",
      reason: `schema: the answer does not match: ${problems}`,
      agent: { ...report.agent!, attention },
    });
  }
}

function endedReportOf(run: Settled, report: AgentReport | undefined): reports.EndedReport[] {
  if (!report || run.action !== "finished" || run.attemptToken === null) return [];
  const { orgId, runId, attemptToken, watcherId, agentId, deviceId } = run;
  return [
    { orgId, runId, attemptToken, watcherId, agentId, deviceId, hasWindow: run.windowId !== null, report },
  ];
}

function settlementOf(report: Report): Settlement {
  return {
    answer: report.agent,
    ...(report.agent ? { attention: report.agent.attention } : {}),
    orgId: report.orgId,
    workId: report.workId,
    attemptToken: report.attemptToken,
    deviceId: report.deviceId,
    action: "finish_or_retry",
    status: report.status,
    ...(report.laterMs === undefined ? {} : { laterMs: report.laterMs }),
    ...textsOf(report),
    isOutputTruncated: report.isOutputTruncated,
    exitCode: report.exitCode,
    durationMs: report.durationMs,
    pushedAgoMs: agoMs(report.pushedAt),
    startedAgoMs: agoMs(report.startedAt),
  };
}

function agoMs(at: number | undefined): number | undefined {
  return at === undefined ? undefined : Math.max(0, Math.round(performance.now() - at));
}

function textsOf({ reason, output, signal }: Report): Pick<Report, "reason" | "output" | "signal"> {
  return { reason: storableText(reason), output: storableText(output), signal: storableText(signal) };
}
