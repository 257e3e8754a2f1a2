import { type Batcher, createBatcher } from "../batcher.ts";
import { Refusal, refuse } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type Db, isFinal, mayBeOfOneRow, transaction } from "../store/pg/database.ts";
import * as events from "../store/work/events.ts";
import * as lateReplies from "../store/work/late-replies.ts";
import { lateResultsMax } from "../store/work/late-results.ts";
import type { SessionKey } from "../store/work/presence.ts";
import type { AttemptName, PastVerdict } from "../store/work/settlements.ts";
import {
  commitOrUndo,
  commitTerminalReply,
  type EndedTurn,
  findVerdicts,
  type TerminalReply,
  type Withdrawal,
  type WithdrawnTurn,
  withdraw,
} from "../store/work/turn-settlements.ts";
import type { TurnBell } from "./turn-bell.ts";

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
 * database refuses to end does not affect the others (R9): after a refused batch, each is ended by
 * itself, and turns still refused are logged and left unchanged. `tx` must be an open transaction;
 * an error not caused by a single row (see mayBeOfOneRow) is thrown.
 */
export async function endEach(
  tx: Db,
  replies: readonly TerminalReply[],
  log: Logger | undefined,
): Promise<EndedTurn[]> {
  if (replies.length === 0) return [];
  const all = await commitOrUndo(tx, replies);
  if ("ended" in all) return all.ended;
  log?.error({ err: all.error, turns: replies.length }, "turns could not be ended together; one by one now");
  const ended: EndedTurn[] = [];
  for (const reply of replies) {
    const one = await commitOrUndo(tx, [reply]);
    if ("ended" in one) ended.push(...one.ended);
    else {
      const { orgId, turnId, status } = reply;
      log?.error({ err: one.error, orgId, turnId, status }, "a turn cannot be ended and was left");
    }
  }
  return ended;
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

/** The fields that `withdraw` and `end` need of a turn. */
type Ending = Omit<TerminalReply, "holderId">;

/**
 * Stores ends of turns, in batches. A resolved end has been committed and announced; an error that
 * may pass (see isPassing) is rejected, and the call may be repeated. `end` and `withdraw` return
 * whether the caller's attempt was current.
 *
 *   claimed, running ──reply──▶ ended (stored)      marker gone ──reply──▶ superseded, kept late
 *        │  └──────────end────▶ ended
 *        └──withdraw──▶ pending again, or ended if a cancel was requested
 */
export type TurnEndings = {
  /**
   * Stores a worker's reply, exactly once. Refuses with `invalid_argument` a reply that can never
   * be stored.
   */
  reply(reply: Reply): Promise<ReplyVerdict>;
  /** Pinion itself ends a turn. */
  end(ending: Ending): Promise<boolean>;
  /** Gives back a claim that no worker accepted. */
  withdraw(withdrawal: Withdrawal): Promise<boolean>;
  idle(): Promise<void>;
};

/**
 * Replies per transaction, and maximum waiting replies; beyond it the worker is asked to send the
 * reply again.
 */
const repliesPerBatchMax = 200;
const repliesWaitingMax = 20_000;
const overflow = () =>
  new Refusal("unavailable", "too many replies wait to be stored; send it again", { retryAfterMs: 1_000 });

export function createTurnEndings(options: { db: Db; doorbell: TurnBell; log: Logger }): TurnEndings {
  const { db, doorbell } = options;

  const replies: Batcher<Reply, ReplyVerdict | "full"> = createBatcher({
    async run(items) {
      const { ended, ...stored } = await transaction(db, (tx) => storeRepliesOnce(tx, items));
      const verdicts: (ReplyVerdict | "full")[] = stored.verdicts;
      doorbell.turnsEnded(ended);
      const late = verdicts.flatMap((verdict, index) => (verdict === "superseded" ? [index] : []));
      if (late.length === 0) return verdicts;
      // In a second transaction, because keepLate locks turns again, and turns must be locked
      // before conversations and events.
      const lateItems = late.map((index) => items[index]!);
      const keeping = await transaction(db, (tx) => keepLate(tx, lateItems));
      doorbell.repliesKept(keeping.kept);
      late.forEach((index, place) => {
        verdicts[index] = keeping.verdicts[place]!;
      });
      return verdicts;
    },
    itemsMax: repliesPerBatchMax,
    queueMax: repliesWaitingMax,
    overflow,
    // R9: a reply that the database refuses does not affect the others.
    mayIsolate: mayBeOfOneRow,
  });

  const endings: Batcher<Ending, boolean> = createBatcher({
    async run(items) {
      const distinct = distinctOf(items);
      const ended = await transaction(db, (tx) =>
        endTurns(
          tx,
          distinct.map((ending) => ({ ...ending, holderId: null })),
        ),
      );
      doorbell.turnsEnded(ended);
      return areIn(items, ended);
    },
    itemsMax: repliesPerBatchMax,
    queueMax: repliesWaitingMax,
    overflow,
    mayIsolate: mayBeOfOneRow,
  });

  const withdrawals: Batcher<Withdrawal, boolean> = createBatcher({
    async run(items) {
      const distinct = distinctOf(items);
      const { withdrawn, ended } = await transaction(db, (tx) => withdrawOnce(tx, distinct));
      doorbell.turnsWithdrawn(withdrawn);
      doorbell.turnsEnded(ended);
      return areIn(items, [...withdrawn, ...ended]);
    },
    itemsMax: repliesPerBatchMax,
    queueMax: repliesWaitingMax,
    overflow,
    mayIsolate: mayBeOfOneRow,
  });

  return {
    async reply(reply) {
      try {
        const verdict = await replies.add(reply);
        if (verdict !== "full") return verdict;
      } catch (error) {
        if (!isFinal(error)) throw error;
        options.log.error({ err: error, turnId: reply.turnId }, "the database refuses a reply");
        refuse("invalid_argument", "completion: the database refuses to store it; see the server's log");
      }
      refuse(
        "invalid_argument",
        `completion: the turn has ${lateResultsMax} late replies and takes no more; this one stays at its worker`,
      );
    },
    end: (ending) => endings.add(ending),
    withdraw: (withdrawal) => withdrawals.add(withdrawal),
    async idle() {
      await Promise.all([replies.idle(), endings.idle(), withdrawals.idle()]);
    },
  };
}

/**
 * Removes repeats: of the items about one turn, only one pair of attempt and session can be
 * current.
 */
function distinctOf<
  Item extends { turnId: string; attemptToken: string | null; session?: SessionKey | undefined },
>(items: readonly Item[]): Item[] {
  const keyOf = (item: Item) => `${nameOf(item)} ${item.session?.epoch} ${item.session?.sessionId}`;
  return [...new Map(items.map((item) => [keyOf(item), item])).values()];
}

/** Whether each item was settled. */
function areIn(
  items: readonly { turnId: string; attemptToken: string | null }[],
  settled: readonly { turnId: string; attemptToken: string | null }[],
): boolean[] {
  const names = new Set(settled.map(nameOf));
  return items.map((item) => names.has(nameOf(item)));
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

const nameOf = (reply: { turnId: string; attemptToken: string | null }) =>
  `${reply.turnId} ${reply.attemptToken}`;

/**
 * Stores replies in the caller's transaction; a repeat within them is stored once and answered
 * twice.
 */
export async function storeRepliesOnce(
  tx: Db,
  replies: readonly Reply[],
): Promise<{ verdicts: ReplyVerdict[]; ended: EndedTurn[] }> {
  const distinct = new Map<string, Reply>();
  for (const reply of replies) if (!distinct.has(nameOf(reply))) distinct.set(nameOf(reply), reply);
  // At most one of two attempts of a turn is current: the other, in a statement of its own, finds
  // the marker deleted.
  const ofTurn = new Map<string, Reply[]>();
  for (const reply of distinct.values())
    ofTurn.set(reply.turnId, [...(ofTurn.get(reply.turnId) ?? []), reply]);
  const rounds = Math.max(0, ...[...ofTurn.values()].map((ofOne) => ofOne.length));
  const ended: EndedTurn[] = [];
  for (let round = 0; round < rounds; round++) {
    const batch = [...ofTurn.values()].flatMap((ofOne) => ofOne.slice(round, round + 1));
    ended.push(...(await commitTerminalReply(tx, batch)));
  }
  const verdicts = new Map<string, ReplyVerdict>(ended.map((turn) => [nameOf(turn), turn.verdict]));
  const rest = [...distinct.values()].filter((reply) => !verdicts.has(nameOf(reply)));
  // A separate statement, to see the writes of transactions that the settlement waited for; before
  // the events, whose lock is the org's.
  const past = await findVerdicts(tx, rest.map(attemptOf));
  rest.forEach((reply, index) => {
    verdicts.set(nameOf(reply), past[index]!);
  });
  await appendEnded(tx, ended, replies);
  const seen = new Set<string>();
  return {
    ended,
    verdicts: replies.map((reply) => {
      const name = nameOf(reply);
      const verdict = verdicts.get(name)!;
      const isRepeat = seen.has(name);
      seen.add(name);
      return isRepeat && verdict === "stored" ? "already_stored" : verdict;
    }),
  };
}

/**
 * Keeps late replies in the caller's transaction, each once, with their events; a repeat is
 * answered like the first.
 */
export async function keepLate(
  tx: Db,
  replies: readonly Reply[],
): Promise<{ verdicts: ("superseded" | "unknown" | "full")[]; kept: lateReplies.KeptReply[] }> {
  const distinct = [...new Map(replies.map((reply) => [nameOf(reply), reply])).values()];
  const { verdicts, kept } = await lateReplies.keep(tx, distinct);
  await events.appendAll(
    tx,
    kept.map(({ orgId, turnId, holderId, attempt, outcome }) => ({
      ...{ orgId, kind: "turn.late_reply", actor: `device:${holderId}`, deviceId: holderId },
      data: { turn_id: turnId, attempt, outcome },
    })),
  );
  const byName = new Map(distinct.map((reply, index) => [nameOf(reply), verdicts[index]!]));
  return { kept, verdicts: replies.map((reply) => byName.get(nameOf(reply))!) };
}

function attemptOf(reply: Reply): AttemptName {
  const { orgId, holderId: deviceId, turnId: runId, attemptToken } = reply;
  return { orgId, deviceId, workId: runId, attemptToken };
}
