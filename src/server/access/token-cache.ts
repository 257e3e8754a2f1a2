import type { Principal } from "./principal.ts";

/**
 * Milliseconds that a lookup is cached. After a missed `forget`, a revoked token works at most for
 * this time.
 */
const cacheMs = 5_000;
/** Age in milliseconds from which a use of a cached lookup has it repeated, without waiting. */
const agingMs = 3_000;
/** Maximum number of cached tokens; the oldest lookup is dropped first. About 4 MB. */
const cacheEntriesMax = 10_000;
/** Maximum number of invalid tokens remembered, each for `cacheMs`. */
const badEntriesMax = 20_000;

type Entry = { principal: Principal; until: number; isAging: boolean };

/**
 * The results of token lookups, by the token's hash: a principal, or "no good" for a token that
 * never becomes valid.
 */
export class TokenCache {
  readonly #principals = new Map<string, Entry>();
  /** The time until which a token counts as no good. */
  readonly #noGood = new Map<string, number>();
  /** Grows with every `forget`, so that the result of an earlier lookup is not kept. */
  #generation = 0;

  find(hash: Buffer): Principal | "no good" | undefined {
    const key = keyOf(hash);
    const known = this.#principals.get(key);
    if (known && performance.now() < known.until) return known.principal;
    return this.#isNoGood(key) ? "no good" : undefined;
  }

  /**
   * Whether the lookup is to be repeated ahead of its end; true once for each lookup. A caller who
   * calls every second so never waits for one.
   */
  isAging(hash: Buffer): boolean {
    const known = this.#principals.get(keyOf(hash));
    if (!known || known.isAging || performance.now() < known.until - cacheMs + agingMs) return false;
    known.isAging = true;
    return true;
  }

  /** Whether the token needs no lookup, or had one that a next use repeats. */
  has(hash: Buffer): boolean {
    const key = keyOf(hash);
    return this.#principals.has(key) || this.#isNoGood(key);
  }

  /**
   * Begins a lookup; the returned function keeps its result, for at most `expiresInMs`. Undefined
   * only drops the earlier result.
   */
  beginLookup(hash: Buffer): (found: Principal | "no good" | undefined, expiresInMs?: number | null) => void {
    const key = keyOf(hash);
    const generation = this.#generation;
    return (found, expiresInMs) => {
      this.#principals.delete(key);
      if (found === "no good") this.#keepNoGood(key);
      else if (found && generation === this.#generation) {
        dropOldest(this.#principals, cacheEntriesMax);
        const until = performance.now() + Math.min(cacheMs, expiresInMs ?? cacheMs);
        this.#principals.set(key, { principal: found, until, isAging: false });
      }
    };
  }

  /** The token's next use asks the database, also if a lookup is under way. */
  forget(tokenId: string): void {
    this.#forgetWhere((principal) => principal.tokenId === tokenId);
  }

  /** {@link forget} for all tokens of a person in an org: their role changed. */
  forgetPerson({ orgId, userId }: { orgId: string; userId: string }): void {
    this.#forgetWhere((principal) => principal.orgId === orgId && principal.userId === userId);
  }

  #forgetWhere(isMeant: (principal: Principal) => boolean): void {
    this.#generation++;
    for (const [key, { principal }] of this.#principals) {
      if (isMeant(principal)) this.#principals.delete(key);
    }
  }

  #isNoGood(key: string): boolean {
    return performance.now() < (this.#noGood.get(key) ?? 0);
  }

  #keepNoGood(key: string): void {
    this.#noGood.delete(key);
    dropOldest(this.#noGood, badEntriesMax);
    this.#noGood.set(key, performance.now() + cacheMs);
  }
}

function dropOldest(entries: Map<string, unknown>, max: number): void {
  if (entries.size < max) return;
  const [oldest] = entries.keys();
  if (oldest !== undefined) entries.delete(oldest);
}

function keyOf(hash: Buffer): string {
  return hash.toString("base64");
}
