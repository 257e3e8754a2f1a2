/** Token buckets in memory, and the key of an address. */

type Bucket = { left: number; at: number };

export type Buckets = {
  /**
   * Takes a token and returns 0; if the bucket is empty, returns the milliseconds until the next
   * token.
   */
  take(key: string): number;
  /** The same result, without taking a token. */
  peek(key: string): number;
  readonly size: number;
};

/** At most `keysMax` buckets. Each fills by `perMs` tokens a millisecond, up to `burst` tokens. */
export function createBuckets(options: {
  perMs: number;
  burst: number;
  keysMax: number;
  now: () => number;
}): Buckets {
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
        const [oldest] = buckets.keys();
        if (oldest !== undefined && buckets.size >= options.keysMax) buckets.delete(oldest);
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

/**
 * The key of an address: the address of IPv4, and the /64 network of IPv6, because one caller may
 * use all addresses of the network.
 */
export function networkOf(address: string): string {
  const [bare = ""] = address.split("%");
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
