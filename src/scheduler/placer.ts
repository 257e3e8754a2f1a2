import type { Logger } from "../log.ts";
import type { Quotas } from "../store/people/quotas.ts";
import type { Db } from "../store/pg/database.ts";
import { isUnavailable } from "../store/pg/failures.ts";
import { type Looks, looksAlone } from "../store/pg/looks.ts";
import * as placements from "../store/work/placements.ts";
import { placeOnce, type Rung } from "./placing-pass.ts";

/**
 * Places gated runs: runs with a selector, and runs held back by a group or a rate limit. A pass
 * handles one org, in one transaction under the org's lock, on any replica. Passes are requested
 * after changes that may give a held run its place, and by the sweep; orgs without gated runs cost
 * nothing.
 *
 *   held ──place──▶ pending with its device ──claim──▶ …
 *     ▲                    │ its device goes, or does not take the run
 *     └────take back───────┘  (a gated run back in pending is held again: settlements.ts)
 */
export type Placer = {
  /** A run was recorded that needs placing, now or when it falls due. */
  recorded(orgId: string, dueAt: Date): void;
  /** A slot may be free, or a group have room: of interest where gated runs live. */
  freed(orgId: string): void;
  /** As {@link freed}, at a later time. */
  freedAt(orgId: string, at: Date): void;
  /** Facts of devices, or the rights to use them, have changed. */
  changed(orgId: string): void;
  /** Another replica has gated runs of the org. */
  heard(orgId: string): void;
  /** Checks every org with gated runs. */
  sweep(): Promise<void>;
  idle(): Promise<void>;
  stop(): void;
};
/**
 * Milliseconds that a replica assumes gated runs in an org, and milliseconds between announcements
 * to other replicas.
 */
const knownMs = 60_000;
const announceMs = 10_000;
/** Milliseconds that an announcement may take to arrive. */
const announcedWithinMs = 2_000;
/** Maximum number of pending timers for passes. */
const timersMax = 1_000;

type PlacerOptions = {
  db: Db;
  looks?: Looks;
  log: Logger;
  ttlMs: number;
  quotas: Pick<Quotas, "findRoom" | "add">;
  /** Rings the devices, after the commit. */
  ring: (placed: readonly Rung[]) => void;
  /** Runs changed; their watchers are woken. */
  moved: (runs: readonly { orgId: string; runId: string }[]) => void;
  /** Tells other replicas that the org has gated runs. */
  announce: (orgId: string) => void;
};

export function createPlacer(options: PlacerOptions): Placer {
  const { db, log, looks = looksAlone(db) } = options;
  const asked = new Set<string>();
  const known = new KnownOrgs(options.announce);
  const timers = new OrgTimers((orgId) => ask(orgId));
  let running: Promise<void> | undefined;
  let isStopped = false;

  function ask(orgId: string): void {
    if (isStopped) return;
    asked.add(orgId);
    running ??= drain();
  }

  async function drain(): Promise<void> {
    // Requests in the same turn of the event loop share a pass.
    await Promise.resolve();
    for (const orgId of asked) {
      asked.delete(orgId);
      try {
        await serve(orgId);
      } catch (error) {
        // The sweep comes again.
        log[isUnavailable(error) ? "warn" : "error"]({ err: error, orgId }, "runs were not placed");
      }
    }
    running = undefined;
    if (asked.size > 0) running = drain();
  }

  async function serve(orgId: string): Promise<void> {
    const passed = await placeOnce(db, { ...options, orgId });
    options.ring(passed.rung);
    options.moved(passed.moved);
    if (passed.live === 0) known.forget(orgId);
    else known.remember(orgId);
    if (passed.isMore) ask(orgId);
    else if (passed.againMs !== undefined) timers.set(orgId, Date.now() + passed.againMs);
  }

  return {
    recorded(orgId, dueAt) {
      known.remember(orgId);
      if (dueAt.getTime() <= Date.now()) ask(orgId);
      else timers.set(orgId, dueAt.getTime());
    },
    freed(orgId) {
      if (known.has(orgId)) ask(orgId);
    },
    freedAt(orgId, at) {
      if (known.has(orgId)) timers.set(orgId, at.getTime());
    },
    changed: (orgId) => ask(orgId),
    heard: (orgId) => known.hear(orgId),
    async sweep() {
      for (const orgId of await looks.ask(placements.gatedOrgs)) ask(orgId);
      await running;
    },
    async idle() {
      while (running) await running;
    },
    stop() {
      isStopped = true;
      timers.stop();
    },
  };
}

/** The orgs that are assumed to have gated runs, each for a minute. */
export class KnownOrgs {
  /** Times in milliseconds since 1970. */
  readonly #known = new Map<string, { heardAt: number; until: number }>();
  readonly #announcedAt = new Map<string, number>();
  readonly #announce: (orgId: string) => void;

  constructor(announce: (orgId: string) => void) {
    this.#announce = announce;
  }

  has(orgId: string): boolean {
    const known = this.#known.get(orgId);
    if (!known) return false;
    if (known.until > Date.now()) return true;
    this.#known.delete(orgId);
    this.#announcedAt.delete(orgId);
    return false;
  }

  /** Notes gated runs that this replica has seen, and tells other replicas now and then. */
  remember(orgId: string): void {
    const now = Date.now();
    this.hear(orgId);
    if ((this.#announcedAt.get(orgId) ?? 0) > now - announceMs) return;
    this.#announcedAt.set(orgId, now);
    this.#announce(orgId);
  }

  /** Another replica has seen gated runs. */
  hear(orgId: string): void {
    const now = Date.now();
    this.#known.set(orgId, { heardAt: now, until: now + knownMs });
  }

  /**
   * No gated run is left. An org heard of lately stays known for a while: its next gated run, on the
   * replica that announced the org, is announced only when `announceMs` have passed.
   */
  forget(orgId: string): void {
    const known = this.#known.get(orgId);
    if (known) known.until = known.heardAt + announceMs + announcedWithinMs;
  }
}

/** A timer for each org, for its earliest time; a pass sets the next timer. */
class OrgTimers {
  readonly #timers = new Map<string, { at: number; timer: NodeJS.Timeout }>();
  readonly #onTime: (orgId: string) => void;
  #isStopped = false;

  constructor(onTime: (orgId: string) => void) {
    this.#onTime = onTime;
  }

  /** `at`: milliseconds since 1970. */
  set(orgId: string, at: number): void {
    if (this.#isStopped) return;
    const before = this.#timers.get(orgId);
    if (before && before.at <= at) return;
    if (!before && this.#timers.size >= timersMax) return;
    clearTimeout(before?.timer);
    const timer = setTimeout(
      () => {
        this.#timers.delete(orgId);
        this.#onTime(orgId);
      },
      // Slightly after the time, because the database's clock decides.
      Math.min(Math.max(0, at - Date.now()) + 5, 2_147_483_647),
    );
    timer.unref();
    this.#timers.set(orgId, { at, timer });
  }

  stop(): void {
    this.#isStopped = true;
    for (const { timer } of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }
}
