/**
 * The due deliveries that a replica may try next. A walk through the waiting lanes finds them; from
 * the result of one walk the replica claims many times:
 *
 *   walk ──▶ found ──choose──▶ claim ──▶ tries
 *    ▲                 ▲──────────────────┘ the end of a try makes room
 *    └── after four times the length of the walk, if it found many
 *
 * So any number of waiting lanes (of a receiver that is down) costs a replica a fifth of one
 * connection's time at most.
 */
import type { Db } from "../store/pg/database.ts";
import * as claims from "../store/work/messages/delivery-claims.ts";

/** The running tries of a destination. */
export type Busy = { orgId: string; destinationId: string; count: number };

/** How many deliveries a claim takes, with the running tries of the replica. */
export type Places = {
  /** Maximum deliveries of the claim. */
  limit: number;
  /** Of `limit`, the places that only orgs with at most `perOrgFew` tries get. */
  reserve: number;
  /** Maximum tries of a destination, and of an org. */
  perDestinationMax: number;
  perOrgMax: number;
  perOrgFew: number;
  busy: readonly Busy[];
};

/**
 * The deliveries that get a place: among the tries of their destination, of their org, and of all.
 * An org with few tries comes before an org with many. Pure.
 */
export function choose(found: readonly claims.Due[], places: Places): claims.Due[] {
  const { limit, reserve, perDestinationMax, perOrgMax, perOrgFew, busy } = places;
  const [ofDestination, ofOrg] = [new Map<string, number>(), new Map<string, number>()];
  for (const { orgId, destinationId, count } of busy) {
    ofDestination.set(destinationId, count);
    ofOrg.set(orgId, (ofOrg.get(orgId) ?? 0) + count);
  }
  const placed: { due: claims.Due; orgPlace: number }[] = [];
  for (const due of found) {
    const place = (ofDestination.get(due.destinationId) ?? 0) + 1;
    const orgPlace = (ofOrg.get(due.orgId) ?? 0) + 1;
    if (place > perDestinationMax || orgPlace > perOrgMax) continue;
    ofDestination.set(due.destinationId, place);
    ofOrg.set(due.orgId, orgPlace);
    placed.push({ due, orgPlace });
  }
  return placed
    .sort((a, b) => a.orgPlace - b.orgPlace)
    .slice(0, limit)
    .filter(({ orgPlace }, index) => orgPlace <= perOrgFew || index < limit - reserve)
    .map(({ due }) => due);
}

/** From this number of found deliveries on, their walk was a long one. */
const manyFound = 64;
/** Times the length of a long walk, and maximum milliseconds, from its end to the next walk. */
const restFactor = 4;
const restMsMax = 2_000;

/** `waitMs`: without a claim, the time until the next; undefined: nothing is due that is free. */
type Claim = { claimed: claims.Claimed[]; waitMs?: number };

export class DueDeliveries {
  readonly #db: Db;
  /** What the last walk found, without what was claimed since. */
  #found: readonly claims.Due[] = [];
  /** The moment of the next walk, by performance.now(). */
  #walkFrom = 0;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Whether a claim needs no look for due deliveries before it. */
  get isKnown(): boolean {
    return this.#found.length > 0;
  }

  async claim(places: Places, leaseMs: number): Promise<Claim> {
    const restMs = this.#walkFrom - performance.now();
    if (restMs <= 0) await this.#walk();
    const chosen = new Set(choose(this.#found, places));
    if (chosen.size > 0) {
      this.#found = this.#found.filter((due) => !chosen.has(due));
      return { claimed: await claims.claim(this.#db, [...chosen], leaseMs), waitMs: 0 };
    }
    if (restMs > 0) return { claimed: [], waitMs: restMs };
    // The end of a try makes room for what was found.
    return this.isKnown ? { claimed: [], waitMs: Number.POSITIVE_INFINITY } : { claimed: [] };
  }

  async #walk(): Promise<void> {
    const from = performance.now();
    this.#found = await claims.findDue(this.#db);
    const tookMs = performance.now() - from;
    const restMs = this.#found.length < manyFound ? 0 : Math.min(restFactor * tookMs, restMsMax);
    this.#walkFrom = performance.now() + restMs;
  }
}
