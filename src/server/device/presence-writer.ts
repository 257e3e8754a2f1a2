import type { Logger } from "../../log.ts";
import type { BrokenSession } from "../../scheduler/turn-sweep.ts";
import type { Db } from "../../store/pg/database.ts";
import * as presence from "../../store/work/presence.ts";
import type { AttemptName } from "../../store/work/settlements.ts";
import { type AttemptKind, attemptKinds, type Work } from "./work.ts";

/**
 * Heartbeats are written together, a statement for each kind, however many there are: twice in an interval, so that of a TTL
 * of three intervals no more than half of one is lost to the writing, and more often where the TTL is shorter than that.
 */
const writesPerInterval = 2;
const writesPerTtl = 6;

/** Writes who is there. What could not be written, because the database was away, is written with what comes later. */
export type PresenceWriter = {
  /** A session beat, and listed these attempts. */
  beat(session: presence.SessionName, attempts: readonly (AttemptName & { kind: AttemptKind })[]): void;
  /** A session ended. Written at once. `broken`: nobody had asked it to, and the turns that were pushed to it fail now. */
  end(session: presence.SessionName, broken: { pushed: ReadonlySet<string> } | undefined): void;
  close(): Promise<void>;
};

export function startPresenceWriter(options: {
  db: Db;
  log: Logger;
  /** A session beat that is not its device's open one. */
  onStale: (session: presence.StaleSession) => void;
  works: Record<AttemptKind, Pick<Work, "beat">>;
  /** How long a session is alive after a beat, in milliseconds. */
  ttlMs: number;
  /** How often a device beats, in milliseconds. */
  heartbeatIntervalMs: number;
  /** The fast path: fails the turns of sessions whose end has been written. What it rejects is tried again. */
  onBroken: (sessions: readonly BrokenSession[]) => Promise<void>;
  /** Told of each write: how many sessions beat, and how long it took. */
  onBatch?: (size: number, ms: number) => void;
  /** The end of a session was written, and no newer one had replaced it. */
  onEnded: (session: presence.SessionName) => void;
}): PresenceWriter {
  const { db, log } = options;
  let beaten = new Map<string, presence.SessionName>();
  let listed = new Map<string, AttemptName & { kind: AttemptKind }>();
  let ended = new Map<string, presence.SessionName & { pushed: ReadonlySet<string> | undefined }>();
  let writing: Promise<void> | undefined;

  async function write(): Promise<void> {
    // What arrives in the same turn goes along.
    await Promise.resolve();
    const batch = { beaten, listed, ended };
    beaten = new Map();
    listed = new Map();
    ended = new Map();
    const startedAt = performance.now();
    const beats = batch.beaten.size;
    try {
      // Beats first: one that came before its session's end must not look later than the end.
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
    } catch (error) {
      beaten = new Map([...batch.beaten, ...beaten]);
      listed = new Map([...batch.listed, ...listed]);
      ended = new Map([...batch.ended, ...ended]);
      log.warn(
        { err: error, beats: beaten.size, ends: ended.size },
        "presence was not written; will try again",
      );
    }
    writing = undefined;
  }

  const timer = setInterval(
    () => {
      if (beaten.size + ended.size > 0) writing ??= write();
    },
    Math.min(options.heartbeatIntervalMs / writesPerInterval, options.ttlMs / writesPerTtl),
  );

  return {
    beat({ orgId, deviceId, epoch, sessionId }, attemptsBeating) {
      beaten.set(deviceId, { orgId, deviceId, epoch, sessionId });
      for (const attempt of attemptsBeating) listed.set(attempt.attemptToken, attempt);
    },
    end({ orgId, deviceId, epoch, sessionId }, broken) {
      ended.set(sessionId, { orgId, deviceId, epoch, sessionId, pushed: broken?.pushed });
      writing ??= write();
    },
    async close() {
      clearInterval(timer);
      await writing;
      if (beaten.size + ended.size > 0) await write();
    },
  };
}
