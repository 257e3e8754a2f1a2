/**
 * Networks from which a stranger's connection was closed for its requests. New connections of a
 * suspect network may open fewer streams until a token on them has been verified: the library of
 * HTTP/2 refuses the others before an object is made of each, at a fortieth of the cost.
 */

/** Milliseconds of suspicion after the last connection that was closed. */
const suspicionMs = 60_000;
/** Maximum networks remembered; the longest known is dropped first. A few megabytes. */
const networksMax = 20_000;

export type Suspects = {
  note(network: string): void;
  has(network: string): boolean;
};

/** `now`: a monotonic clock in milliseconds. */
export function createSuspects(now: () => number): Suspects {
  const notedAt = new Map<string, number>();
  return {
    note(network) {
      // To the end of the map's order.
      notedAt.delete(network);
      notedAt.set(network, now());
      const [oldest] = notedAt.keys();
      if (notedAt.size > networksMax && oldest !== undefined) notedAt.delete(oldest);
    },
    has(network) {
      const at = notedAt.get(network);
      if (at === undefined) return false;
      if (now() - at < suspicionMs) return true;
      notedAt.delete(network);
      return false;
    },
  };
}
