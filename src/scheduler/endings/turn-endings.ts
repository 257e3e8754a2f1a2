import { bisect } from "../../batches/batcher.ts";
import { pairsOf } from "../../batches/pairs.ts";
import { type Db, undoable } from "../../store/pg/database.ts";
import { mayBeOfOneRow, takingData } from "../../store/pg/failures.ts";
import { storableText } from "../../store/pg/values/storable.ts";
import type { PastVerdict } from "../../store/work/attempts/completions.ts";
import type { AttemptName } from "../../store/work/attempts/settlements.ts";
import * as events from "../../store/work/service/events.ts";
import * as lateReplies from "../../store/work/turns/late-replies.ts";
import {
  commitTerminalReply,
  type EndedTurn,
  findVerdicts,
  type TerminalReply,
  type Withdrawal,
  type WithdrawnTurn,
  withdraw,
} from "../../store/work/turns/turn-settlements.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Doorbell } from "../doorbell.ts";
import {
  agoMs,
  type Ending,
  type EndingsOf,
  firstOfEach,
  nameOf,
  type Report,
  tellEach,
  verdictsOf,
} from "./endings.ts";

/** The ends of turns, with their events and announcements. The first end of a turn counts. */

/**
 * Ends turns and writes their events, in the caller's transaction. Appending events takes the orgs'
 * locks, so nothing else may follow in the transaction.
 */
export async function endTurns(tx: Db, replies: readonly TerminalReply[]): Promise<EndedTurn[]> {
  const ended = await commitTerminalReply(tx, replies);
  await appendEnded(tx, ended, replies);
  return ended;
}

/**
 * Ends turns locked by the caller, without their events (see {@link appendEnded}). A turn that the
 * database refuses to end is logged and left unchanged (R9). `tx` must be an open transaction; an
 * error not caused by a single row (see mayBeOfOneRow) is thrown.
 */
export async function endEach(
  tx: Db,
  replies: readonly TerminalReply[],
  log: Logger | undefined,
): Promise<EndedTurn[]> {
  if (replies.length === 0) return [];
  return bisect(replies, (part) => undoable(tx, () => commitTerminalReply(tx, part)), {
    mayIsolate: mayBeOfOneRow,
    onSplit: (part, error) =>
      log?.error({ err: error, turns: part.length }, "turns could not be ended together; by halves now"),
    onBad({ orgId, turnId, status }, error) {
      log?.error({ err: error, orgId, turnId, status }, "a turn cannot be ended and was left");
      return [];
    },
  });
}

/**
 * Appends the events of ended turns: the second half of {@link endTurns}, and equally the
 * transaction's last statement.
 */
export async function appendEnded(
  tx: Db,
  ended: readonly EndedTurn[],
  replies: readonly Pick<TerminalReply, "turnId" | "holderId">[] = [],
): Promise<void> {
  const reporters = new Map(replies.map((reply) => [reply.turnId, reply.holderId]));
  await events.appendAll(
    tx,
    ended.map((turn) => eventOf(turn, turn.verdict === "stored" ? reporters.get(turn.turnId) : null)),
  );
}

function eventOf(turn: EndedTurn, reporterId: string | null | undefined): events.NewEvent {
  return {
    orgId: turn.orgId,
    kind: `turn.${turn.status}`,
    actor: reporterId ? `device:${reporterId}` : "pinion",
    deviceId: turn.holderId,
    data: {
      turn_id: turn.turnId,
      agent_id: turn.agentId,
      ...(turn.conversationId ? { conversation_id: turn.conversationId } : {}),
      message_id: turn.messageId,
      attempt: turn.attempt,
      ...(turn.reason ? { reason: turn.reason } : {}),
      ...(turn.isRetryable ? { is_retryable: true } : {}),
    },
  };
}

/** A worker's own report on a turn. */
export type Reply = TerminalReply & { attemptToken: string; holderId: string };
export type ReplyVerdict = "stored" | PastVerdict["verdict"];

/**
 * The ends of turns, for the service of endings.
 *
 *   claimed, running ──report──▶ ended (stored)      marker gone ──report──▶ superseded, kept late
 *        │  └──────────finish──▶ ended
 *        └──withdraw──▶ pending again, or ended if a cancel was requested
 */
export function turnEndings({
  doorbell,
}: {
  doorbell: Pick<Doorbell, "turnsEnded" | "turnsWithdrawn" | "repliesKept">;
}): EndingsOf {
  return {
    noun: "turn",
    async storeCurrent(tx, reports) {
      const { verdicts, ended } = await storeRepliesOnce(tx, reports.map(replyOf));
      return { answers: verdicts.map(answerOf), tell: () => tellEach(ended, doorbell.turnsEnded) };
    },
    async storeLate(tx, reports) {
      const { verdicts, kept } = await keepLate(tx, reports.map(replyOf));
      return {
        answers: verdicts.map((verdict) => (verdict === "full" ? verdict : answerOf(verdict))),
        tell: () => tellEach(kept, doorbell.repliesKept),
      };
    },
    async settle(tx, endings) {
      const isWithdrawal = endings.every(({ action }) => action === "withdraw");
      const { withdrawn, ended } = isWithdrawal
        ? await withdrawOnce(tx, endings.map(withdrawalOf))
        : { withdrawn: [], ended: await endTurns(tx, endings.map(terminalReplyOf)) };
      return {
        tokens: [...withdrawn, ...ended].map(({ attemptToken }) => attemptToken),
        async tell() {
          await tellEach(withdrawn, doorbell.turnsWithdrawn);
          await tellEach(ended, doorbell.turnsEnded);
        },
      };
    },
  };
}

const answerOf = (verdict: ReplyVerdict) => ({ verdict, windowId: null });

/** A failure reported by a worker is the agent's: not retryable. */
function replyOf(report: Report): Reply {
  return {
    orgId: report.orgId,
    turnId: report.workId,
    attemptToken: report.attemptToken,
    holderId: report.deviceId,
    status: report.status,
    reason: storableText(report.reason),
    isRetryable: false,
    // The answer of an agent that reports one; its output is then for programs.
    reply: storableText(report.agent?.result || report.output),
    agentSessionId: storableText(report.agent?.sessionId ?? ""),
    isReplyTruncated: report.isOutputTruncated,
    nextSnapshot: report.nextSnapshot,
    exitCode: report.exitCode,
    signal: storableText(report.signal),
    durationMs: report.durationMs,
    startedAgoMs: agoMs(report.startedAt),
  };
}

/** A turn is tried once: the sender of its message decides about another try. */
function terminalReplyOf({ isRetryable = true, ...ending }: Ending): TerminalReply {
  return {
    ...{ orgId: ending.orgId, turnId: ending.workId, attemptToken: ending.attemptToken, holderId: null },
    ...{ session: ending.session, reason: ending.reason, isRetryable, reply: ending.output ?? "" },
    status: ending.status === "cancelled" ? "cancelled" : "failed",
  };
}

function withdrawalOf({ orgId, workId, attemptToken, session, reason, delayMs = 0 }: Ending): Withdrawal {
  return { orgId, turnId: workId, attemptToken, session, reason, delayMs };
}

/**
 * Gives claims back in the caller's transaction; a turn with a requested cancel does not start
 * again, and ends.
 */
async function withdrawOnce(
  tx: Db,
  withdrawals: readonly Withdrawal[],
): Promise<{ withdrawn: WithdrawnTurn[]; ended: EndedTurn[] }> {
  const { withdrawn, unwanted } = await withdraw(tx, withdrawals);
  const ending = new Set(unwanted.map((turn) => turn.turnId));
  const rest = withdrawals.filter(({ turnId }) => ending.has(turnId));
  const ended = await endTurns(
    tx,
    rest.map(({ orgId, turnId, attemptToken, reason }) => ({
      ...{ orgId, turnId, attemptToken, reason },
      ...{ holderId: null, status: "failed", isRetryable: true },
    })),
  );
  return { withdrawn, ended };
}

/**
 * Stores replies in the caller's transaction; a repeat within them is stored once and answered
 * twice.
 */
export async function storeRepliesOnce(
  tx: Db,
  replies: readonly Reply[],
): Promise<{ verdicts: ReplyVerdict[]; ended: EndedTurn[] }> {
  const named = replies.map((reply) => ({ ...reply, workId: reply.turnId }));
  const distinct = firstOfEach(named);
  // At most one of two attempts of a turn is current: the other, in a statement of its own, finds
  // the marker deleted.
  const ofTurn = new Map<string, Reply[]>();
  for (const reply of distinct.values())
    ofTurn.set(reply.turnId, [...(ofTurn.get(reply.turnId) ?? []), reply]);
  const rounds = Math.max(0, ...[...ofTurn.values()].map((ofOne) => ofOne.length));
  const ended: EndedTurn[] = [];
  for (let round = 0; round < rounds; round++) {
    const batch = [...ofTurn.values()].flatMap((ofOne) => ofOne.slice(round, round + 1));
    ended.push(...(await takingData(() => commitTerminalReply(tx, batch))));
  }
  const verdicts = new Map<string, { verdict: ReplyVerdict }>(
    ended.map(({ turnId, attemptToken, verdict }) => [nameOf({ workId: turnId, attemptToken }), { verdict }]),
  );
  const rest = [...distinct].filter(([name]) => !verdicts.has(name));
  // A separate statement, to see the writes of transactions that the settlement waited for; before
  // the events, whose lock is the org's.
  const past = await findVerdicts(
    tx,
    rest.map(([, reply]) => attemptOf(reply)),
  );
  for (const [[name], verdict] of pairsOf(rest, past)) verdicts.set(name, { verdict });
  await appendEnded(tx, ended, replies);
  return { ended, verdicts: verdictsOf(named, verdicts).map(({ verdict }) => verdict) };
}

/**
 * Keeps late replies in the caller's transaction, each once, with their events; a repeat is
 * answered like the first.
 */
export async function keepLate(
  tx: Db,
  replies: readonly Reply[],
): Promise<{ verdicts: ("superseded" | "unknown" | "full")[]; kept: lateReplies.KeptReply[] }> {
  const named = replies.map((reply) => ({ ...reply, workId: reply.turnId }));
  const distinct = [...firstOfEach(named).values()];
  const { verdicts, kept } = await lateReplies.keep(tx, distinct);
  await events.appendAll(
    tx,
    kept.map(({ orgId, turnId, holderId, attempt, outcome }) => ({
      ...{ orgId, kind: "turn.late_reply", actor: `device:${holderId}`, deviceId: holderId },
      data: { turn_id: turnId, attempt, outcome },
    })),
  );
  const byName = new Map(pairsOf(distinct, verdicts).map(([reply, verdict]) => [nameOf(reply), { verdict }]));
  return { kept, verdicts: verdictsOf(named, byName).map(({ verdict }) => verdict) };
}

function attemptOf(reply: Reply): AttemptName {
  const { orgId, holderId: deviceId, turnId: workId, attemptToken } = reply;
  return { orgId, deviceId, workId, attemptToken };
}
