import type { Logger } from "../../log.ts";
import * as attempts from "../../store/attempts.ts";
import type { Db } from "../../store/database.ts";
import * as presence from "../../store/presence.ts";
import type { AttemptName } from "../../store/settlements.ts";

/** Heartbeats and ends of sessions are written together this often: a statement for each kind, however many there are. */
const writeEveryMs = 1_000;

/** Writes who is there. What could not be written, because the database was away, is written with what comes later. */
export type PresenceWriter = {
  /** A session beat, and listed these attempts. */
  beat(session: presence.SessionName, attempts: readonly AttemptName[]): void;
  /** A session ended. Written at once. */
  end(session: presence.SessionName): void;
  close(): Promise<void>;
};

export function startPresenceWriter(options: {
  db: Db;
  log: Logger;
  /** A session beat that is no longer its device's current one. */
  onStale: (session: presence.SessionName) => void;
  /** The end of a session was written, and no newer one had replaced it. */
  onEnded: (session: presence.SessionName) => void;
}): PresenceWriter {
  const { db, log } = options;
  let beaten = new Map<string, presence.SessionName>();
  let listed = new Map<string, AttemptName>();
  let ended = new Map<string, presence.SessionName>();
  let writing: Promise<void> | undefined;

  async function write(): Promise<void> {
    // What arrives in the same turn goes along.
    await Promise.resolve();
    const batch = { beaten, listed, ended };
    beaten = new Map();
    listed = new Map();
    ended = new Map();
    try {
      // Beats first: one that came before its session's end must not look later than the end.
      const stale = await presence.beat(db, [...batch.beaten.values()]);
      batch.beaten = new Map();
      await attempts.beat(db, [...batch.listed.values()]);
      batch.listed = new Map();
      const closed = await presence.close(db, [...batch.ended.values()]);
      batch.ended = new Map();
      for (const session of closed) options.onEnded(session);
      for (const session of stale) options.onStale(session);
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

  const timer = setInterval(() => {
    if (beaten.size + ended.size > 0) writing ??= write();
  }, writeEveryMs);

  return {
    beat({ orgId, deviceId, epoch }, attemptsBeating) {
      beaten.set(deviceId, { orgId, deviceId, epoch });
      for (const attempt of attemptsBeating) listed.set(attempt.attemptToken, attempt);
    },
    end({ orgId, deviceId, epoch }) {
      ended.set(`${deviceId} ${epoch}`, { orgId, deviceId, epoch });
      writing ??= write();
    },
    async close() {
      clearInterval(timer);
      await writing;
      if (beaten.size + ended.size > 0) await write();
    },
  };
}
