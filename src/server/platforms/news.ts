/** What instances say of themselves, collected for a moment, so that a busy chat writes rarely. */
import * as leases from "../../store/agents/platform-leases.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Logger } from "../../telemetry/log.ts";

type Named = { orgId: string; stableId: string };

export type News = {
  heard(platform: Named): void;
  said(platform: Named): void;
  trouble(platform: Named, what: string): void;
  /** Writes what is left. */
  close(): Promise<void>;
};

/** Milliseconds that news wait for more. */
const collectMs = 100;
/** Platforms with news that wait; more are dropped while the database is away. */
const waitingMax = 10_000;

export function createNews({ db, log }: { db: Db; log: Logger }): News {
  let waiting = new Map<string, leases.News>();
  let timer: NodeJS.Timeout | undefined;
  let writing = Promise.resolve();

  function add({ orgId, stableId }: Named, more: Partial<leases.News>): void {
    const key = `${orgId} ${stableId}`;
    if (!waiting.has(key) && waiting.size >= waitingMax) return;
    waiting.set(key, { ...waiting.get(key), ...more, orgId, stableId });
    timer ??= setTimeout(write, collectMs);
  }

  function write(): void {
    timer = undefined;
    const batch = [...waiting.values()];
    waiting = new Map();
    writing = writing
      .then(() => leases.note(db, batch))
      .catch((error: unknown) => log.warn({ err: error }, "news of platforms could not be stored"));
  }

  return {
    heard: (platform) => add(platform, { inAt: new Date() }),
    said: (platform) => add(platform, { outAt: new Date() }),
    trouble: (platform, what) => add(platform, { error: what }),
    async close() {
      clearTimeout(timer);
      if (waiting.size > 0) write();
      await writing;
    },
  };
}
