import { bisect } from "../../batches/batcher.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../store/pg/failures.ts";
import { looksAlone } from "../../store/pg/looks.ts";
import type { SessionName } from "../../store/work/service/presence.ts";
import {
  lockOfSessions,
  lockOverdue,
  lookOverdue,
  type OverdueTurn,
} from "../../store/work/turns/lost-turns.ts";
import type { EndedTurn, TerminalReply } from "../../store/work/turns/turn-settlements.ts";
import type { Logger } from "../../telemetry/log.ts";
import { type Clock, elapsedMs, lockedByClock } from "../slots/clock.ts";
import { appendEnded, endEach, endTurns } from "./turn-endings.ts";

/**
 * Ends turns that will get no reply: at once when their worker's stream breaks (the fast path), and
 * at their deadlines otherwise. Any number of replicas may do both at once.
 */

/** Turns per transaction. */
const turnsPerPassMax = 500;

/**
 * Ends up to `limit` turns past their deadline. A turn that the database refuses to end is logged
 * and left (R9).
 */
export async function sweepTurnsOnce(
  db: Db,
  options: {
    ttlMs: number;
    isQuiet?: boolean;
    limit?: number;
    log?: Logger;
    judge?: Pick<Clock, "require"> | undefined;
  },
): Promise<EndedTurn[]> {
  const { ttlMs, isQuiet = false, limit = turnsPerPassMax, log, judge } = options;
  // Nearly always no turn is overdue; a look then suffices.
  if (!(await looksAlone(db).ask(lookOverdue({ ttlMs, isQuiet })))) return [];
  const sent = { sentAtMs: elapsedMs(), steadyMsMin: isQuiet ? 0 : ttlMs };
  return transaction(db, async (tx) => {
    const overdue = await lockedByClock(judge, sent, lockOverdue(tx, { ttlMs, isQuiet, limit }));
    const ended = await endEach(tx, overdue.map(endingOf), log);
    await appendEnded(tx, ended);
    return ended;
  });
}

const endings: Record<
  OverdueTurn["rule"],
  (turn: OverdueTurn) => Pick<TerminalReply, "status" | "reason" | "isRetryable">
> = {
  not_started: () => ({
    status: "timeout",
    reason: "no worker had started it when its start deadline passed",
    isRetryable: true,
  }),
  expired: () => ({
    status: "timeout",
    reason: "its timeout passed and its worker did not end it",
    isRetryable: true,
  }),
  cancelled: () => ({ status: "cancelled", reason: "its worker did not answer", isRetryable: false }),
  no_device: () => ({
    status: "failed",
    reason: "the device that it was pinned to was deleted",
    isRetryable: true,
  }),
  silent: ({ lastBeatAt }) => ({
    status: "failed",
    reason: lastBeatAt
      ? `worker lost: no heartbeat for the turn since ${lastBeatAt.toISOString()}`
      : "worker lost: it never beat for the turn",
    isRetryable: true,
  }),
};

function endingOf(turn: OverdueTurn): TerminalReply {
  const { orgId, turnId, attemptToken, rule } = turn;
  return { orgId, turnId, attemptToken, holderId: null, ...endings[rule](turn) };
}

/** A session whose stream broke, and the tokens of the attempts on its device at the time. */
export type BrokenSession = SessionName & { pushed: ReadonlySet<string> };

/**
 * The fast path: the streams of the sessions broke, and their turns fail now. A turn that the
 * database refuses to end does not affect the others (R9): the turns of each session are then ended
 * apart and, if necessary, each turn by itself; a turn still refused is logged and left to its
 * deadline. An error not caused by a single row (see mayBeOfOneRow) is thrown, and the call may be
 * repeated.
 */
export async function failTurnsOfSessions(
  db: Db,
  sessions: readonly BrokenSession[],
  options: { log: Logger; onEnded: (ended: readonly EndedTurn[]) => void },
): Promise<void> {
  const { log, onEnded } = options;
  if (sessions.length === 0) return;
  const refused: BrokenSession[] = [];
  await bisect(
    sessions,
    async (part) => {
      onEnded(await failTurns(db, part));
      return [];
    },
    {
      mayIsolate: mayBeOfOneRow,
      onSplit: (part, error) =>
        log.error({ err: error, sessions: part.length }, "turns could not be ended together; by halves now"),
      onBad(session) {
        refused.push(session);
        return [];
      },
    },
  );
  for (const session of refused) await failEachTurn(db, session, options);
}

/** Ends each turn of the session by itself. */
async function failEachTurn(
  db: Db,
  session: BrokenSession,
  { log, onEnded }: { log: Logger; onEnded: (ended: readonly EndedTurn[]) => void },
): Promise<void> {
  for (const { turnId } of await transaction(db, (tx) => lockOfSessions(tx, [session]))) {
    try {
      onEnded(await failTurns(db, [session], turnId));
    } catch (error) {
      if (!mayBeOfOneRow(error)) throw error;
      log.error({ err: error, orgId: session.orgId, turnId }, "a turn cannot be ended and was left");
    }
  }
}

/** In one transaction: ends the turns of the sessions, or only the turn `onlyId`. */
async function failTurns(db: Db, sessions: readonly BrokenSession[], onlyId?: string): Promise<EndedTurn[]> {
  const pushed = new Set(sessions.flatMap((session) => [...session.pushed]));
  return transaction(db, async (tx) => {
    const lost = (await lockOfSessions(tx, sessions)).filter(
      // A turn whose claim was under way when the stream broke is given back by its session.
      ({ turnId, status, attemptToken }) =>
        (status === "running" || pushed.has(attemptToken)) && (!onlyId || turnId === onlyId),
    );
    return endTurns(
      tx,
      lost.map(({ orgId, turnId, attemptToken }) => ({
        ...{ orgId, turnId, attemptToken },
        holderId: null,
        status: "failed",
        reason: "worker lost: its stream broke",
        isRetryable: true,
      })),
    );
  });
}
