/**
 * The database of a replica: its schema, its two pools, and the rows required in every database.
 */
import { secretKeys } from "../server/platforms/kinds.ts";
import { healSecretSettings } from "../store/agents/platform-healing.ts";
import { provisionDefaultAgents } from "../store/people/orgs/default-agents.ts";
import { ensureBootstrap } from "../store/people/orgs/orgs.ts";
import { type Database, openDatabase } from "../store/pg/database.ts";
import { findBeginning, type Incarnation, isSame, read } from "../store/pg/incarnation.ts";
import { createLooks, type Looks } from "../store/pg/looks.ts";
import { isPooler } from "../store/pg/pooled.ts";
import { requireRoles } from "../store/pg/tenancy.ts";
import { requireCell } from "../store/work/service/cells.ts";
import type { Logger } from "../telemetry/log.ts";
import { withCell } from "../values/ids.ts";
import type { Foundation } from "./foundation.ts";

export type Storage = {
  /** For the scheduler's loops and the sessions' batches. */
  work: Database;
  /** The looks of its loops, in common statements. */
  looks: Looks;
  /** For requests, so requests never delay a completion. */
  requests: Database;
  /** The token of the first start; only on an empty database. */
  bootstrapToken: string | undefined;
  /** Identity of the database as of the last `look`. */
  incarnation: {
    current(): Incarnation | undefined;
    look(): Promise<void>;
    /**
     * Looks if there may be news: a connection was opened, because a failover breaks all of them;
     * the position was told to a device; or the last look is `idleMsMax` milliseconds old. Through
     * a pooler, whose connections outlive a failover, always.
     */
    lookIfNews(idleMsMax: number): Promise<void>;
    /** Called after a change of the database, a failover. */
    onChange(listener: () => void): void;
  };
};

/** Connections of {@link Storage.work}. */
const workConnections = 8;
/**
 * Connections of {@link Storage.requests} that are kept when they are idle: a new one takes a
 * trigger 5 ms to open, and 10 to plan its statements on.
 */
export const requestsKept = 2;

/**
 * Opens the pools of a migrated database and creates missing rows. Refuses with an error and its
 * remedy.
 */
export async function openStorage(
  { config, log, opened }: Foundation,
  options: { keepBootstrapToken?: ((token: string) => void) | undefined },
): Promise<Storage> {
  const isPooled = isPooler({ url: config.databaseUrl, directUrl: config.directDatabaseUrl });
  const open = (applicationName: string, poolMax: number, kept = 0) => {
    const database = openDatabase({
      url: config.databaseUrl,
      poolMax,
      kept: Math.min(kept, poolMax),
      applicationName,
      isPooled,
      log,
    });
    opened.defer(() => database.close());
    return database;
  };
  const work = open("pinion-work", workConnections);
  const requests = open("pinion-requests", config.connectionsMax, requestsKept);

  await requireRoles(work.db);
  const named = (secret: string) => withCell(secret, config.cell);
  const keep = (secret: string) => options.keepBootstrapToken?.(named(secret));
  await requireCell(work.db, config.cell);
  const bootstrap = await ensureBootstrap(work.db, config, keep, config.bootstrapToken);
  await provisionDefaultAgents(work.db, config);
  const { left } = await healSecretSettings(work.db, { ...config.secrets, secretKeys });
  if (left > 0)
    log.warn({ platforms: left }, "platforms hold secrets that are not encrypted; set PINION_SECRET_KEYS");
  const incarnation = watchIncarnation(work, { log, isPooled });
  await incarnation.look();
  const looks = createLooks(work.db);
  return { work, looks, requests, bootstrapToken: bootstrap && named(bootstrap.secret), incarnation };
}

export function watchIncarnation(
  { db, opened }: Pick<Database, "db" | "opened">,
  { log, isPooled }: { log: Logger; isPooled: boolean },
): Storage["incarnation"] {
  let current: Incarnation | undefined;
  let openedBefore = 0;
  let lookedAt = Number.NEGATIVE_INFINITY;
  let wasTold = false;
  const listeners = new Set<() => void>();

  async function look(): Promise<void> {
    const openedNow = opened();
    const found = await read(db).catch((error: unknown) => {
      // Some database users lack the permission, and an unreachable database has no answer.
      log.debug({ err: error }, "which database this is cannot be read");
      return undefined;
    });
    if (!found) return;
    openedBefore = openedNow;
    lookedAt = performance.now();
    wasTold = false;
    const before = current;
    const isNext =
      before?.systemIdentifier === found.systemIdentifier && before.timeline + 1 === found.timeline;
    // Only a replica that saw both timelines knows where the later one began; devices of other
    // replicas offer everything again.
    const safePosition = isNext
      ? await findBeginning(db).catch(() => undefined)
      : before && isSame(before, found)
        ? before.safePosition
        : undefined;
    current = { ...found, safePosition };
    if (!before || isSame(before, found)) return;
    log.warn(
      { before, now: found },
      "the database failed over; devices offer again what it may have forgotten",
    );
    for (const listener of listeners) listener();
  }

  return {
    current() {
      wasTold = true;
      return current;
    },
    onChange: (listener) => void listeners.add(listener),
    look,
    async lookIfNews(idleMsMax) {
      const isQuiet = !isPooled && !wasTold && opened() === openedBefore;
      if (isQuiet && performance.now() - lookedAt < idleMsMax) return;
      await look();
    },
  };
}
