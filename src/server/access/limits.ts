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
  /**
   * Refuses with `resource_exhausted` while too many attempts from the address ("": unknown) have failed, for what can be
   * guessed: join codes. Counts nothing.
   */
  requireAttempt(address: string): void;
  /** Whether too many tokens from the address, or too many that begin like this one, were no good. Counts nothing. */
  isSuspect(address: string, authorization: string | null | undefined): boolean;
  /** Counts an attempt from the address that failed, and of the token's beginning if it was one with a token. */
  countFailure(address: string, authorization?: string | null): void;
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

/** The beginning of a token: its kind and six of its random characters, which tell one token from another. */
function prefixOf(authorization: string | null | undefined): string {
  return /pin_[a-z]+_\w{0,6}/.exec(authorization ?? "")?.[0] ?? "";
}
