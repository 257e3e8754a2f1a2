import { bisect } from "../../batches/batcher.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import { type Db, undoable } from "../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../store/pg/failures.ts";
import type { KeptResult } from "../../store/work/attempts/late-results.ts";
import {
  type FailurePolicy,
  type Settled,
  type Settlement,
  settle,
} from "../../store/work/attempts/settlements.ts";
import * as alerts from "../../store/work/messages/alerts.ts";
import * as deliveries from "../../store/work/messages/deliveries.ts";
import * as placements from "../../store/work/runs/placements.ts";
import * as events from "../../store/work/service/events.ts";
import type { Logger } from "../../telemetry/log.ts";
import { startFollowers } from "../starts/chains.ts";
import { alertsOf, noticesOf } from "./notices.ts";

/**
 * Settles attempts and writes their events, in the caller's transaction (R5). Appending events
 * takes the orgs' locks, so nothing else may follow in the transaction.
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
 * Appends the events of settled runs: the second half of {@link settleWithEvents}, and equally the
 * transaction's last statement.
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

/** Like {@link settleWithEvents}, but a refused settlement is left (see {@link settleEach}). */
export async function settleEachWithEvents(
  tx: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
  options: { log?: Logger | undefined; rules?: ReadonlyMap<string, string> } = {},
): Promise<{ settled: Settled[]; refused: Settlement[] }> {
  const { settled, refused } = await settleEach(tx, settlements, policy, options.log);
  await appendSettled(tx, settlements, settled, { rules: options.rules, quotas: policy.quotas });
  return { settled, refused };
}

/**
 * Settles attempts locked by the caller, without their events (see {@link appendSettled}). A
 * settlement that the database refuses is logged, returned and left unchanged (R9). `tx` must be an
 * open transaction; an error not caused by a single row (see mayBeOfOneRow) is thrown.
 */
export async function settleEach(
  tx: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
  log: Logger | undefined,
): Promise<{ settled: Settled[]; refused: Settlement[] }> {
  if (settlements.length === 0) return { settled: [], refused: [] };
  const refused: Settlement[] = [];
  const settled = await bisect(settlements, (part) => undoable(tx, () => settle(tx, part, policy)), {
    mayIsolate: mayBeOfOneRow,
    onSplit: (part, error) =>
      log?.error({ err: error, runs: part.length }, "a batch could not be settled; by halves now"),
    onBad(settlement, error) {
      const { orgId, workId, action, status } = settlement;
      log?.error(
        { err: error, orgId, runId: workId, action, status },
        "a run cannot be settled and was left",
      );
      refused.push(settlement);
      return [];
    },
  });
  return { settled, refused };
}

/**
 * Appends the events of late reports: reports that ended their runs, and reports stored beside
 * them. The last statement, too.
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
