import { pairsOf } from "../../batches/pairs.ts";
import type { Db } from "../../store/pg/database.ts";
import { takingData } from "../../store/pg/failures.ts";
import { storableText } from "../../store/pg/values/storable.ts";
import * as attempts from "../../store/work/attempts/attempts.ts";
import { complete, findVerdicts, isCompleted } from "../../store/work/attempts/completions.ts";
import * as lateReports from "../../store/work/attempts/late-reports.ts";
import type { KeptResult, LateVerdict } from "../../store/work/attempts/late-results.ts";
import {
  type AttemptSettlement,
  type FailurePolicy,
  type Settled,
  settle,
} from "../../store/work/attempts/settlements.ts";
import type { AgentReport } from "../../store/work/runs/reports.ts";
import * as reports from "../../store/work/runs/reports.ts";
import type { Doorbell } from "../doorbell.ts";
import { problemsOf } from "./answers.ts";
import {
  agoMs,
  type EndingsOf,
  firstOfEach,
  nameOf,
  type Report,
  type ReportVerdict,
  verdictsOf,
} from "./endings.ts";
import { appendLate, appendSettled, settleWithEvents } from "./settle.ts";

/** The ends of runs, for the service of endings. */
export function runEndings(options: {
  policy: FailurePolicy;
  doorbell: Pick<Doorbell, "settled" | "kept">;
}): EndingsOf {
  const { policy, doorbell } = options;
  return {
    noun: "run",
    async storeCurrent(tx, asked) {
      const { verdicts, settled } = await storeCurrent(tx, asked, policy);
      return { answers: verdicts, tell: () => doorbell.settled(settled) };
    },
    async storeLate(tx, asked) {
      const { verdicts, settled, kept } = await storeLate(tx, asked, policy);
      return {
        answers: verdicts.map(({ verdict, windowId }) =>
          verdict === "full" ? verdict : { verdict, windowId },
        ),
        tell() {
          doorbell.settled(settled);
          doorbell.kept(kept);
        },
      };
    },
    async settle(tx, endings) {
      const settled = await settleWithEvents(tx, endings, policy);
      return {
        tokens: settled.map(({ attemptToken }) => attemptToken),
        tell: () => doorbell.settled(settled),
      };
    },
  };
}

const nameOfSettled = ({ runId, attemptToken }: Settled) => nameOf({ workId: runId, attemptToken });

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
  const distinct = firstOfEach(asked);
  await checkAnswers(tx, distinct);
  const settlements = [...distinct.values()].map(settlementOf);
  const settled = settlements.every(isCompleted)
    ? await takingData(() => complete(tx, settlements))
    : await takingData(() => settle(tx, settlements, policy));
  const verdicts = new Map<string, ReportVerdict>();
  for (const run of settled) verdicts.set(nameOfSettled(run), { verdict: "stored", windowId: run.windowId });

  const rest = [...distinct.values()].filter((report) => !verdicts.has(nameOf(report)));
  // A separate statement, to see the writes of transactions that the settlement waited for; before
  // the events, whose lock is the org's.
  const past = await findVerdicts(tx, rest);
  const ended = settled.flatMap((run) => endedReportOf(run, distinct.get(nameOfSettled(run))?.agent));
  await takingData(() => reports.store(tx, ended));
  await appendSettled(tx, settlements, settled, { quotas: policy.quotas });
  for (const [report, verdict] of pairsOf(rest, past)) verdicts.set(nameOf(report), verdict);

  return { settled, verdicts: verdictsOf(asked, verdicts) };
}

/**
 * Stores reports of attempts that were taken away, in the caller's transaction (late-reports.ts).
 */
export async function storeLate(
  tx: Db,
  asked: readonly Report[],
  policy: FailurePolicy,
): Promise<{ verdicts: LateVerdict[]; settled: Settled[]; kept: KeptResult[] }> {
  const distinct = firstOfEach(asked);
  await checkAnswers(tx, distinct, { isLate: true });
  const settlements = [...distinct.values()].map(settlementOf);
  const late = [...distinct.values()].map((report) => ({
    ...report,
    ...textsOf(report),
    answer: report.agent,
  }));
  const { verdicts, settled, kept } = await lateReports.store(tx, late, policy);
  const ended = settled.flatMap((run) => endedReportOf(run, distinct.get(nameOfSettled(run))?.agent));
  await takingData(() => reports.store(tx, ended));
  await appendLate(tx, settlements, settled, kept, { quotas: policy.quotas });
  const byName = new Map(pairsOf(late, verdicts).map(([report, verdict]) => [nameOf(report), verdict]));
  return { settled, kept, verdicts: verdictsOf(asked, byName) };
}

/** Fails the run of an answer that does not match its watcher's schema; the answer is kept. */
async function checkAnswers(
  tx: Db,
  distinct: Map<string, Report>,
  options: { isLate?: boolean } = {},
): Promise<void> {
  const answers = [...distinct.values()].flatMap((report) => {
    const { status, agent } = report;
    return status === "completed" && agent?.structured !== undefined ? [{ ...report, agent }] : [];
  });
  const schemas = await attempts.findSchemas(tx, answers, options);
  for (const report of answers) {
    const schema = schemas.get(report.workId);
    const problems = schema && problemsOf(report.agent.structured, schema);
    if (!problems) continue;
    const attention = [...new Set([...report.agent.attention, "schema"])];
    distinct.set(nameOf(report), {
      ...report,
      status: "failed",
      reason: `schema: the answer does not match: ${problems}`,
      agent: { ...report.agent, attention },
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

function settlementOf(report: Report): AttemptSettlement {
  const settlement: AttemptSettlement = {
    answer: report.agent,
    orgId: report.orgId,
    workId: report.workId,
    attemptToken: report.attemptToken,
    deviceId: report.deviceId,
    action: "finish_or_retry",
    status: report.status,
    reason: storableText(report.reason),
    output: storableText(report.output),
    signal: storableText(report.signal),
    isOutputTruncated: report.isOutputTruncated,
    exitCode: report.exitCode,
    durationMs: report.durationMs,
    pushedAgoMs: agoMs(report.pushedAt),
    startedAgoMs: agoMs(report.startedAt),
  };
  if (report.agent) settlement.attention = report.agent.attention;
  if (report.laterMs !== undefined) settlement.laterMs = report.laterMs;
  return settlement;
}

function textsOf({ reason, output, signal }: Report): Pick<Report, "reason" | "output" | "signal"> {
  return { reason: storableText(reason), output: storableText(output), signal: storableText(signal) };
}
