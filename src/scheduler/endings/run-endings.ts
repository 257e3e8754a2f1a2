import { pairsOf } from "../../batches/pairs.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
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
  type Settlement,
  settle,
} from "../../store/work/attempts/settlements.ts";
import * as alerts from "../../store/work/messages/alerts.ts";
import * as deliveries from "../../store/work/messages/deliveries.ts";
import * as placements from "../../store/work/runs/placements.ts";
import type { AgentReport } from "../../store/work/runs/reports.ts";
import * as reports from "../../store/work/runs/reports.ts";
import * as events from "../../store/work/service/events.ts";
import type { Doorbell } from "../doorbell.ts";
import { startFollowers } from "../starts/chains.ts";
import { problemsOf } from "./answers.ts";
import {
  agoMs,
  type EndingsOf,
  firstOfEach,
  nameOf,
  type Report,
  type ReportVerdict,
  tellEach,
  verdictsOf,
} from "./endings.ts";
import { alertsOf, noticesOf } from "./notices.ts";

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
      return { answers: verdicts, tell: () => tellEach(settled, doorbell.settled) };
    },
    async storeLate(tx, asked) {
      const { verdicts, settled, kept } = await storeLate(tx, asked, policy);
      return {
        answers: verdicts.map(({ verdict, windowId }) =>
          verdict === "full" ? verdict : { verdict, windowId },
        ),
        async tell() {
          await tellEach(settled, doorbell.settled);
          await tellEach(kept, doorbell.kept);
        },
      };
    },
    async settle(tx, endings) {
      const settled = await settleWithEvents(tx, endings, policy);
      return {
        tokens: settled.map(({ attemptToken }) => attemptToken),
        tell: () => tellEach(settled, doorbell.settled),
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

/**
 * Settles attempts and writes their events, in the caller's transaction (R5). The events are the
 * transaction's last statement (store/pg/last.ts).
 */
export async function settleWithEvents(
  tx: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
  options: { rules?: ReadonlyMap<string, string> } = {},
): Promise<Settled[]> {
  const settled = await settle(tx, settlements, policy);
  await appendSettled(tx, settlements, settled, { ...options, quotas: policy.quotas });
  return settled;
}

/**
 * Writes the notices of ends for destinations; a run whose watcher notifies no destination costs
 * nothing.
 */
async function tellOf(
  tx: Db,
  settled: readonly Settled[],
  settlementOf: (run: Settled) => Settlement | undefined,
): Promise<void> {
  await deliveries.write(
    tx,
    settled.flatMap((run) => noticesOf(run, settlementOf(run)?.attention)),
  );
  await alerts.alert(tx, settled.flatMap(alertsOf));
}

/**
 * Appends the events of settled runs: the second half of {@link settleWithEvents}.
 */
export async function appendSettled(
  tx: Db,
  settlements: readonly Settlement[],
  settled: readonly Settled[],
  options: { rules?: ReadonlyMap<string, string> | undefined; quotas: Quotas | undefined },
): Promise<void> {
  if (settled.length === 0) return;
  const bySettlement = new Map(settlements.map((s) => [s.workId, s]));
  await tellOf(tx, settled, (run) => bySettlement.get(run.runId));
  // A rate limit reported to one agent holds for all runs under the same key.
  await placements.pauseRates(
    tx,
    settled.flatMap(({ action, orgId, runId, notBefore }) =>
      action === "deferred" && notBefore ? [{ orgId, runId, notBefore }] : [],
    ),
  );
  const started = await startFollowers(
    tx,
    settled.map((run) => ({ run, settlement: bySettlement.get(run.runId) })),
    options,
  );
  await events.appendAll(tx, [
    ...settled.flatMap((run) => eventsOf(run, bySettlement.get(run.runId), options.rules)),
    ...started,
  ]);
}

/**
 * Appends the events of late reports: reports that ended their runs, and reports stored beside
 * them.
 */
export async function appendLate(
  tx: Db,
  settlements: readonly Settlement[],
  settled: readonly Settled[],
  kept: readonly KeptResult[],
  options: { quotas: Quotas | undefined },
): Promise<void> {
  const byToken = new Map(settlements.map((s) => [s.attemptToken, s]));
  const started = await startFollowers(
    tx,
    settled.map((run) => ({ run, settlement: byToken.get(run.attemptToken) })),
    options,
  );
  await tellOf(tx, settled, (run) => byToken.get(run.attemptToken));
  await events.appendAll(tx, [
    ...settled.flatMap((run) => eventsOf(run, byToken.get(run.attemptToken), undefined)),
    ...started,
    ...kept.map(({ orgId, workId, watcherId, deviceId, attempt, outcome }) => ({
      ...{ orgId, runId: workId, watcherId, deviceId },
      kind: "run.late_result",
      actor: `device:${deviceId}`,
      data: { attempt, outcome },
    })),
  ]);
}

function eventsOf(
  run: Settled,
  settlement: Settlement | undefined,
  rules: ReadonlyMap<string, string> | undefined,
): events.NewEvent[] {
  const subject = { orgId: run.orgId, runId: run.runId, watcherId: run.watcherId, deviceId: run.deviceId };
  const rule = rules?.get(run.runId);
  const reporterId = settlement?.deviceId ?? null;
  const attention = run.action === "finished" ? (settlement?.attention ?? []) : [];
  run.attention = attention;
  const written: events.NewEvent[] = [
    {
      ...subject,
      kind: run.action === "finished" ? `run.${run.status}${run.isLate ? "_late" : ""}` : `run.${run.action}`,
      actor: reporterId ? `device:${reporterId}` : "pinion",
      data: dataOf(run, rule),
    },
  ];
  if (attention.length > 0) {
    written.push({
      ...subject,
      kind: "run.attention",
      actor: reporterId ? `device:${reporterId}` : "pinion",
      data: { status: run.status, attention },
    });
  }
  if (run.isWatcherPaused) {
    written.push({
      ...subject,
      kind: "watcher.paused",
      actor: "pinion",
      data: { reason: `${run.consecutiveFailures} failures in a row`, last_failure: run.reason },
    });
  }
  return written;
}

function dataOf({ attempt, reason, windowId }: Settled, rule: string | undefined): Record<string, unknown> {
  const data: Record<string, unknown> = { attempt };
  if (reason) data.reason = reason;
  if (windowId) data.window_id = windowId;
  if (rule) data.rule = rule;
  return data;
}
