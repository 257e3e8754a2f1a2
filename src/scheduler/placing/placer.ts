import type { Quotas } from "../../store/people/orgs/quotas.ts";
import type { Db } from "../../store/pg/database.ts";
import { isUnavailable } from "../../store/pg/failures.ts";
import { type Looks, looksAlone } from "../../store/pg/looks.ts";
import * as placements from "../../store/work/runs/placements.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Subscriber } from "../publisher.ts";
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
  const { db, looks = looksAlone(db) } = options;
  const known = new KnownOrgs(options.announce);
  const passes = new Passes(options, known);
  return {
    recorded(orgId, dueAt) {
      known.remember(orgId);
      if (dueAt.getTime() <= Date.now()) passes.ask(orgId);
      else passes.askAt(orgId, dueAt.getTime());
    },
    freed(orgId) {
      if (known.has(orgId)) passes.ask(orgId);
    },
    freedAt(orgId, at) {
      if (known.has(orgId)) passes.askAt(orgId, at.getTime());
    },
    changed: (orgId) => passes.ask(orgId),
    heard: (orgId) => known.hear(orgId),
    async sweep() {
      for (const orgId of await looks.ask(placements.gatedOrgs)) passes.ask(orgId);
      await passes.current();
    },
    idle: () => passes.idle(),
    stop: () => passes.stop(),
  };
}

/** The passes of the replica: one at a time, each over an asked org. */
class Passes {
  readonly #options: PlacerOptions;
  readonly #known: KnownOrgs;
  readonly #asked = new Set<string>();
  readonly #timers = new OrgTimers((orgId) => this.ask(orgId));
  #running: Promise<void> | undefined;
  #isStopped = false;

  constructor(options: PlacerOptions, known: KnownOrgs) {
    this.#options = options;
    this.#known = known;
  }

  ask(orgId: string): void {
    if (this.#isStopped) return;
    this.#asked.add(orgId);
    this.#running ??= this.#drain();
  }

  /** `at`: milliseconds since 1970. */
  askAt(orgId: string, at: number): void {
    this.#timers.set(orgId, at);
  }

  /** Resolves when the passes that were asked for are done; later requests may be open. */
  async current(): Promise<void> {
    await this.#running;
  }

  async idle(): Promise<void> {
    while (this.#running) await this.#running;
  }

  stop(): void {
    this.#isStopped = true;
    this.#timers.stop();
  }

  async #drain(): Promise<void> {
    // Requests in the same turn of the event loop share a pass.
    await Promise.resolve();
    for (const orgId of this.#asked) {
      this.#asked.delete(orgId);
      try {
        await this.#pass(orgId);
      } catch (error) {
        // The sweep asks again.
        const { log } = this.#options;
        log[isUnavailable(error) ? "warn" : "error"]({ err: error, orgId }, "runs were not placed");
      }
    }
    this.#running = undefined;
    if (this.#asked.size > 0) this.#running = this.#drain();
  }

  async #pass(orgId: string): Promise<void> {
    const { db, ring, moved } = this.#options;
    const passed = await placeOnce(db, { ...this.#options, orgId });
    ring(passed.rung);
    moved(passed.moved);
    if (passed.live === 0) this.#known.forget(orgId);
    else this.#known.remember(orgId);
    if (passed.isMore) this.ask(orgId);
    else if (passed.againMs !== undefined) this.#timers.set(orgId, Date.now() + passed.againMs);
  }
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
   * No gated run is left. An org heard of lately stays known for a while: its next gated run, on
   * the replica that announced the org, is announced only when `announceMs` have passed.
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

/** Requests a pass of the placer after each commit that may give a held run its place. */
export function placerSubscriber(placer: Placer): Subscriber {
  return {
    recorded(runs) {
      for (const { status, orgId, attemptToken, dueAt, isHeld } of runs) {
        if (status === "pending" && !attemptToken && isHeld) placer.recorded(orgId, dueAt);
      }
    },
    settled(settled) {
      for (const { orgId, notBefore } of settled) {
        if (notBefore) placer.freedAt(orgId, notBefore);
        placer.freed(orgId);
      }
    },
    deviceOpened: (orgId) => placer.freed(orgId),
    devicesChanged: (orgId) => placer.changed(orgId),
  };
}
