import type { BrokenSession } from "../../../scheduler/endings/turn-sweep.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { AttemptName } from "../../../store/work/attempts/settlements.ts";
import * as presence from "../../../store/work/service/presence.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { type AttemptKind, attemptKinds, type Work } from "../attempts/work.ts";

/**
 * Heartbeats are written in batches, one statement per kind for any number of them, twice per
 * heartbeat interval. With a TTL of three intervals, batching costs at most half an interval of the
 * TTL. With a shorter TTL the writes are more frequent: `beatWritesPerTtl` in a TTL.
 */
const writesPerInterval = 2;

/**
 * Writes the presence of sessions. Writes that failed because the database was away are repeated
 * with later writes.
 */
export type PresenceWriter = {
  /** Takes a session's heartbeat with its listed attempts. */
  beat(session: presence.SessionName, attempts: readonly (AttemptName & { kind: AttemptKind })[]): void;
  /**
   * Takes a session's end, written at once. `broken`: the end was not requested, and the pushed
   * turns fail now.
   */
  end(session: presence.SessionName, broken: { pushed: ReadonlySet<string> } | undefined): void;
  close(): Promise<void>;
};

type Options = {
  db: Db;
  log: Logger;
  /** Reports a heartbeat of a session that is not its device's open session. */
  onStale: (session: presence.StaleSession) => void;
  works: Record<AttemptKind, Pick<Work, "beat">>;
  /** Milliseconds after a heartbeat for which a session counts as live. */
  ttlMs: number;
  /** Milliseconds between a device's heartbeats. */
  heartbeatIntervalMs: number;
  /**
   * The fast path: fails the turns of sessions whose end has been written. After a rejection the
   * write is repeated.
   */
  onBroken: (sessions: readonly BrokenSession[]) => Promise<void>;
  /** Reports each write: the number of heartbeats and the milliseconds taken. */
  onBatch?: (size: number, ms: number) => void;
  /** Reports the written end of a session without a newer session. */
  onEnded: (session: presence.SessionName) => void;
};

/** What waits to be written: sessions by device, attempts by token, ended sessions by id. */
type Batch = {
  beaten: Map<string, presence.SessionName>;
  listed: Map<string, AttemptName & { kind: AttemptKind }>;
  ended: Map<string, presence.SessionName & { pushed: ReadonlySet<string> | undefined }>;
};

const emptyBatch = (): Batch => ({ beaten: new Map(), listed: new Map(), ended: new Map() });

export function startPresenceWriter(options: Options): PresenceWriter {
  let waiting = emptyBatch();
  let writing: Promise<void> | undefined;
  const isIdle = () => waiting.beaten.size + waiting.ended.size === 0;

  async function write(): Promise<void> {
    // Items that arrive in the same turn join the batch.
    await Promise.resolve();
    // Ends that arrive during a write do not wait for the timer.
    while ((await writeWaiting()) && waiting.ended.size > 0);
    writing = undefined;
  }

  /** Returns whether the batch was written. */
  async function writeWaiting(): Promise<boolean> {
    const batch = waiting;
    waiting = emptyBatch();
    try {
      await writeBatch(options, batch);
      return true;
    } catch (error) {
      // Newer items take precedence.
      waiting.beaten = new Map([...batch.beaten, ...waiting.beaten]);
      waiting.listed = new Map([...batch.listed, ...waiting.listed]);
      waiting.ended = new Map([...batch.ended, ...waiting.ended]);
      const [beats, ends] = [waiting.beaten.size, waiting.ended.size];
      options.log.warn({ err: error, beats, ends }, "presence was not written; will try again");
      return false;
    }
  }

  const timer = setInterval(
    () => {
      if (!isIdle()) writing ??= write();
    },
    Math.min(options.heartbeatIntervalMs / writesPerInterval, options.ttlMs / presence.beatWritesPerTtl),
  );

  return {
    beat(session, attemptsBeating) {
      waiting.beaten.set(session.deviceId, session);
      for (const attempt of attemptsBeating) waiting.listed.set(attempt.attemptToken, attempt);
    },
    end({ orgId, deviceId, epoch, sessionId }, broken) {
      waiting.ended.set(sessionId, { orgId, deviceId, epoch, sessionId, pushed: broken?.pushed });
      writing ??= write();
    },
    async close() {
      clearInterval(timer);
      await writing;
      if (!isIdle()) await write();
    },
  };
}

/** Removes from the batch what has been written, so that a failure leaves what has not. */
async function writeBatch(options: Options, batch: Batch): Promise<void> {
  const { db } = options;
  const startedAt = performance.now();
  const beats = batch.beaten.size;
  // Beats first: a heartbeat before its session's end must not be written after the end.
  const stale = await presence.beat(db, [...batch.beaten.values()]);
  batch.beaten = new Map();
  for (const session of stale) options.onStale(session);
  const inProgress = [...batch.listed.values()];
  for (const of of attemptKinds) {
    await options.works[of].beat(inProgress.filter(({ kind }) => kind === of));
  }
  batch.listed = new Map();
  const sessions = [...batch.ended.values()];
  const closed = await presence.close(db, sessions);
  for (const session of closed) options.onEnded(session);
  // After their end is committed nothing more is claimed for them.
  await options.onBroken(
    sessions.flatMap(({ pushed, ...session }) => (pushed ? [{ ...session, pushed }] : [])),
  );
  batch.ended = new Map();
  if (beats > 0) options.onBatch?.(beats, performance.now() - startedAt);
}
