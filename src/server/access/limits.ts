/**
 * How often somebody may call: token buckets in this replica's memory. A call costs a look into a map and no statement.
 *
 * Each replica counts by itself, so a service of n replicas lets through up to n times as much.
 */
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

type Bucket = { left: number; at: number };

/** Buckets that fill by `perMs` up to `burst`, at most `keysMax` of them. */
export function createBuckets(options: {
  perMs: number;
  burst: number;
  keysMax: number;
  now: () => number;
}): {
  /** Takes one and answers 0, or answers how many milliseconds there is nothing to take, and takes nothing. */
  take(key: string): number;
  /** The same, without taking. */
  peek(key: string): number;
  readonly size: number;
} {
  const { perMs, burst, now } = options;
  const buckets = new Map<string, Bucket>();

  function fill(bucket: Bucket): void {
    const at = now();
    bucket.left = Math.min(burst, bucket.left + (at - bucket.at) * perMs);
    bucket.at = at;
  }

  function waitOf(bucket: Bucket): number {
    return bucket.left >= 1 ? 0 : Math.max(1, Math.ceil((1 - bucket.left) / perMs));
  }

  return {
    take(key) {
      let bucket = buckets.get(key);
      if (bucket) fill(bucket);
      else {
        if (buckets.size >= options.keysMax) buckets.delete(buckets.keys().next().value!);
        bucket = { left: burst, at: now() };
        buckets.set(key, bucket);
      }
      const waitMs = waitOf(bucket);
      if (waitMs === 0) bucket.left -= 1;
      return waitMs;
    },
    peek(key) {
      const bucket = buckets.get(key);
      if (!bucket) return 0;
      fill(bucket);
      return waitOf(bucket);
    },
    get size() {
      return buckets.size;
    },
  };
}

/** What counts as one address: whoever has one of IPv6 has its whole /64. */
export function networkOf(address: string): string {
  const bare = address.split("%")[0]!;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(bare)?.[1];
  if (mapped) return mapped;
  if (!bare.includes(":")) return bare;
  const [head = "", tail] = bare.toLowerCase().split("::");
  const left = head.split(":").filter(Boolean);
  const right = (tail ?? "").split(":").filter(Boolean);
  const gap = tail === undefined ? [] : Array(Math.max(0, 8 - left.length - right.length)).fill("0");
  const groups = [...left, ...gap, ...right].slice(0, 4).map((group) => group.replace(/^0+(?=.)/, ""));
  return `${groups.join(":")}::/64`;
}
