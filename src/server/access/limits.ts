/**
 * How often somebody may call: token buckets in this replica's memory. A call costs a look into a map and no statement.
 *
 * Each replica counts by itself, so a service of n replicas lets through up to n times as much.
 */
import { createBuckets, networkOf } from "../../buckets.ts";
import { refuse } from "../../errors.ts";

/** What admits, and how it is called where it does not. Rates of 0 switch a limit off. */
export type RateLimits = {
  /** Calls per second of one token, streams counted when they open, and how many may come at once after a rest. */
  requestsPerToken: number;
  requestsBurst: number;
  /** Failed attempts per minute from one address. */
  failuresPerAddress: number;
};

export type Limits = {
  /** Counts a call of the token. Refuses with `resource_exhausted` and when to come back. */
  requireRequest(tokenId: string): void;
  /** Refuses with `resource_exhausted` while too many attempts from the address ("": unknown) have failed. Counts nothing. */
  requireAttempt(address: string): void;
  /** Counts an attempt from the address that failed. */
  countFailure(address: string): void;
};

/** Tokens and addresses that are remembered; the one that came first goes first. A few megabytes each. */
const keysMax = 20_000;
const minuteMs = 60_000;

/** `now` is a clock in milliseconds that only grows. */
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
    countFailure(address) {
      if (failuresPerAddress > 0 && address !== "") failures.take(networkOf(address));
    },
  };
}
