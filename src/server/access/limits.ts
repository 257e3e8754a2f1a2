/**
 * Rate limits of callers: token buckets in the replica's memory. A call costs a map lookup and no
 * statement.
 *
 * Each replica counts by itself, so n replicas together admit up to n times the rate.
 */
import { refuse } from "../../errors.ts";
import { createBuckets, networkOf } from "../http/crowd/buckets.ts";

/** The rates. A rate of 0 switches a limit off. */
export type RateLimits = {
  /**
   * Maximum calls per second of one token (streams count when they open), and the burst after idle
   * time.
   */
  requestsPerToken: number;
  requestsBurst: number;
  /** Maximum failed attempts per minute from one address. */
  failuresPerAddress: number;
};

export type Limits = {
  /** Counts a call of the token. Refuses with `resource_exhausted` and when to come back. */
  requireRequest(tokenId: string): void;
  /**
   * Refuses with `resource_exhausted` if too many attempts from the address ("": unknown) have
   * failed. For codes that can be guessed: join codes. Counts nothing.
   */
  requireAttempt(address: string): void;
  /**
   * Whether too many invalid tokens came from the address, or with the same beginning as the given
   * token. Counts nothing.
   */
  isSuspect(address: string, authorization: string | null | undefined): boolean;
  /** Counts a failed attempt for the address and, with a token, for the token's beginning. */
  countFailure(address: string, authorization?: string | null): void;
};

/**
 * Maximum number of tokens and of addresses remembered; the oldest is dropped first. A few
 * megabytes each.
 */
const keysMax = 20_000;
const minuteMs = 60_000;

/** `now`: a monotonic clock in milliseconds. */
export function createLimits(limits: RateLimits, now: () => number = () => performance.now()): Limits {
  const { requestsPerToken, requestsBurst, failuresPerAddress } = limits;
  const requests = createBuckets({
    perMs: requestsPerToken / 1_000,
    burst: Math.max(requestsBurst, requestsPerToken),
    keysMax,
    now,
  });
  const failures = createBuckets({
    perMs: failuresPerAddress / minuteMs,
    burst: failuresPerAddress,
    keysMax,
    now,
  });
  const prefixes = createBuckets({
    perMs: failuresPerAddress / minuteMs,
    burst: failuresPerAddress,
    keysMax,
    now,
  });
  return {
    requireRequest(tokenId) {
      if (requestsPerToken === 0) return;
      const waitMs = requests.take(tokenId);
      if (waitMs === 0) return;
      refuse(
        "resource_exhausted",
        `this token makes more than ${requestsPerToken} calls a second; call less often, or have PINION_REQUESTS_PER_TOKEN raised`,
        { retryAfterMs: waitMs },
      );
    },
    requireAttempt(address) {
      if (failuresPerAddress === 0 || address === "") return;
      const waitMs = failures.peek(networkOf(address));
      if (waitMs === 0) return;
      refuse(
        "resource_exhausted",
        `more than ${failuresPerAddress} tokens or join codes a minute from this address were no good; wait, and use one that is`,
        { retryAfterMs: waitMs },
      );
    },
    isSuspect(address, authorization) {
      if (failuresPerAddress === 0) return false;
      const isBadAddress = address !== "" && failures.peek(networkOf(address)) > 0;
      return isBadAddress || prefixes.peek(prefixOf(authorization)) > 0;
    },
    countFailure(address, authorization) {
      if (failuresPerAddress === 0) return;
      if (address !== "") failures.take(networkOf(address));
      if (authorization) prefixes.take(prefixOf(authorization));
    },
  };
}

/**
 * The beginning of a token: its kind and up to six of its random characters, enough to tell tokens
 * apart.
 */
function prefixOf(authorization: string | null | undefined): string {
  return /pin_[a-z]+_(?:[a-z][a-z0-9]{0,15}_)?\w{0,6}/.exec(authorization ?? "")?.[0] ?? "";
}
