import { type Batcher, createBatcher } from "../batcher.ts";
import { Refusal, refuse } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type Db, isPassing, transaction } from "../store/pg/database.ts";
import { storableText } from "../store/pg/storable.ts";
import * as attempts from "../store/work/attempts.ts";
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
import { appendSettled } from "./settle.ts";

/** How a device says that an attempt ended. Sizes are checked before it gets here. */
export type Report = {
  orgId: string;
  deviceId: string;
  runId: string;
  attemptToken: string;
  status: "completed" | "failed" | "timeout" | "cancelled";
  output: string;
  isOutputTruncated: boolean;
  exitCode: number | undefined;
  signal: string;
  reason: string;
  durationMs: number | undefined;
  /** Set when the accept may not be stored yet: when the attempt was pushed, and accepted, by the monotonic clock. */
  pushedAt?: number;
  startedAt?: number;
  /** Of a turn: what its conversation's next one is given. */
  nextSnapshot?: Uint8Array | undefined;
  /** Of a failure: the attempt may be made again after this, and does not count. */
  laterMs?: number;
  /** What its agent says of its work; undefined: the executor tells nothing. */
  agent?: AgentReport | undefined;
};

export type ReportVerdict = {
  verdict: "stored" | "already_stored" | "superseded" | "unknown";
  windowId: string | null;
};

/**
 * Stores reports, each exactly once (R5). What `report` resolves with has been committed; it refuses with
 * `invalid_argument` what can never be stored, and rejects with what may pass (see isPassing).
 */
export type Completer = {
  report(report: Report): Promise<ReportVerdict>;
  idle(): Promise<void>;
};

/** Reports per transaction. 500 outputs of the largest size are 500 MiB, so a batch is also bounded in characters. */
const reportsPerBatchMax = 500;
const charactersPerBatchMax = 16_000_000;
/** Reports that may wait. Beyond it the device is asked to send again. */
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
    const { verdicts, settled } = await transaction(db, (tx) => storeOnce(tx, reports, policy));
    doorbell.settled(settled);
    return verdicts;
  }

  async function storeEach(reports: Report[]): Promise<ReportVerdict[]> {
    try {
      return await store(reports);
    } catch (error) {
      if (isPassing(error)) throw error;
      if (reports.length === 1) {
        options.log.error({ err: error, runId: reports[0]!.runId }, "the database refuses a completion");
        return [refused];
      }
      // R9: one report that the database refuses must not take the others with it.
      const half = Math.ceil(reports.length / 2);
      // One after the other: a large batch must not take every connection while it is searched.
      const first = await storeEach(reports.slice(0, half));
      return [...first, ...(await storeEach(reports.slice(half)))];
    }
  }

  const batcher: Batcher<Report, ReportVerdict> = createBatcher({
    async run(reports) {
      const verdicts: ReportVerdict[] = [];
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
      if (verdict === refused) {
        refuse("invalid_argument", "completion: the database refuses to store it; see the server's log");
      }
      return verdict;
    },
    idle: () => batcher.idle(),
  };
}

/** Stands for a report that the database will never take; never leaves this file. */
const refused: ReportVerdict = { verdict: "unknown", windowId: null };

/** Splits a batch where its outputs together grow too large for one statement. */
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

const nameOf = (attempt: { runId: string; attemptToken: string | null }) =>
  `${attempt.runId} ${attempt.attemptToken}`;

/** Stores reports in the caller's transaction; a repeat within them is stored once and answered twice. */
export async function storeOnce(
  tx: Db,
  asked: readonly Report[],
  policy: FailurePolicy,
): Promise<{ verdicts: ReportVerdict[]; settled: Settled[] }> {
  const distinct = new Map<string, Report>();
  for (const report of asked) if (!distinct.has(nameOf(report))) distinct.set(nameOf(report), report);

  await checkAnswers(tx, distinct);
  const settlements = [...distinct.values()].map(settlementOf);
  const settled = await settle(tx, settlements, policy);
  const verdicts = new Map<string, ReportVerdict>();
  for (const run of settled) verdicts.set(nameOf(run), { verdict: "stored", windowId: run.windowId });

  const rest = [...distinct.values()].filter((report) => !verdicts.has(nameOf(report)));
  // A statement of its own, so it sees what those wrote for whom the settling waited; and before the events, whose lock
  // is the org's.
  const past = await findVerdicts(tx, rest);
  await reports.store(
    tx,
    settled.flatMap((run) => endedReportOf(run, distinct.get(nameOf(run))?.agent)),
  );
  await appendSettled(tx, settlements, settled);
  rest.forEach((report, index) => {
    verdicts.set(nameOf(report), past[index]!);
  });

  const seen = new Set<string>();
  return {
    settled,
    verdicts: asked.map((report) => {
      const name = nameOf(report);
      const verdict = verdicts.get(name)!;
      const isRepeat = seen.has(name);
      seen.add(name);
      return isRepeat && verdict.verdict === "stored" ? { ...verdict, verdict: "already_stored" } : verdict;
    }),
  };
}

/** An answer that does not match its watcher's schema fails its run; the answer is kept. */
async function checkAnswers(tx: Db, distinct: Map<string, Report>): Promise<void> {
  const answers = [...distinct.values()].filter(
    ({ status, agent }) => status === "completed" && agent?.structured !== undefined,
  );
  const schemas = await attempts.findSchemas(tx, answers);
  for (const report of answers) {
    const schema = schemas.get(report.runId);
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
    runId: report.runId,
    attemptToken: report.attemptToken,
    deviceId: report.deviceId,
    action: "finish_or_retry",
    status: report.status,
    ...(report.laterMs === undefined ? {} : { laterMs: report.laterMs }),
    reason: storableText(report.reason),
    output: storableText(report.output),
    isOutputTruncated: report.isOutputTruncated,
    exitCode: report.exitCode,
    signal: storableText(report.signal),
    durationMs: report.durationMs,
    pushedAgoMs: agoMs(report.pushedAt),
    startedAgoMs: agoMs(report.startedAt),
  };
}

function agoMs(at: number | undefined): number | undefined {
  return at === undefined ? undefined : Math.max(0, Math.round(performance.now() - at));
}
