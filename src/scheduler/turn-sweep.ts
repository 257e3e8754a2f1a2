import type { Logger } from "../log.ts";
import { type Db, transaction } from "../store/database.ts";
import {
  type EndedTurn,
  lockOfSessions,
  lockOverdue,
  type OverdueTurn,
  type TerminalReply,
} from "../store/turn-settlements.ts";
import { type Loop, startLoop } from "./loop.ts";
import type { TurnBell } from "./turn-bell.ts";
import { appendEnded, endEach } from "./turn-endings.ts";

/**
 * Ends the turns that nobody will answer any more: at once when their worker's stream breaks (the fast path), and by
 * their deadlines otherwise. Any number of replicas may do both at once.
 */

/** Turns per transaction. */
const turnsPerPassMax = 500;

/** Ends up to `limit` turns whose deadline has passed. One that the database refuses to end is logged and left (R9). */
export function sweepTurnsOnce(
  db: Db,
  options: { ttlMs: number; isQuiet?: boolean; limit?: number; log?: Logger },
): Promise<EndedTurn[]> {
  const { ttlMs, isQuiet = false, limit = turnsPerPassMax, log } = options;
  return transaction(db, async (tx) => {
    const overdue = await lockOverdue(tx, { ttlMs, isQuiet, limit });
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

/**
 * The fast path: the streams of these sessions broke, and their turns fail now. One that the database refuses to end is
 * logged and left to its deadline (R9).
 */
export function failTurnsOfSessions(
  db: Db,
  sessions: readonly { orgId: string; deviceId: string; epoch: number }[],
  log?: Logger,
): Promise<EndedTurn[]> {
  return transaction(db, async (tx) => {
    const lost = await lockOfSessions(tx, sessions);
    const ended = await endEach(
      tx,
      lost.map((turn) => ({
        ...turn,
        holderId: null,
        status: "failed",
        reason: "worker lost: its stream broke",
        isRetryable: true,
      })),
      log,
    );
    await appendEnded(tx, ended);
    return ended;
  });
}

/**
 * Starts the sweep. Silence is not held against anybody for one TTL after the start, after the database was away, and
 * after this process stood still: everything looks stale then. Absolute limits always count.
 */
export function startTurnSweep(options: {
  db: Db;
  doorbell: TurnBell;
  log: Logger;
  ttlMs: number;
  intervalMs: number;
}): Loop {
  const { db, log, ttlMs, intervalMs } = options;
  let quietUntil = performance.now() + ttlMs;
  let lastPassAt = performance.now();
  return startLoop({
    name: "turn-sweep",
    log,
    onUnavailable: () => {
      quietUntil = performance.now() + ttlMs;
    },
    async pass() {
      const now = performance.now();
      if (now - lastPassAt > intervalMs + ttlMs / 2) quietUntil = now + ttlMs;
      lastPassAt = now;
      const ended = await sweepTurnsOnce(db, { ttlMs, isQuiet: now < quietUntil, log });
      if (ended.length > 0) {
        log.warn(
          { turns: ended.length, first: ended[0]!.turnId, reason: ended[0]!.reason },
          "ended turns that were not answered in time",
        );
      }
      options.doorbell.turnsEnded(ended);
      return ended.length === turnsPerPassMax ? 0 : intervalMs;
    },
  });
}
