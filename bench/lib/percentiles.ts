export type Percentiles = { count: number; p50: number; p99: number; max: number };

/** Of measurements in any order; the nearest rank. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

/** The milliseconds between two arrivals of a Poisson process, from a seeded generator. */
export function* poissonGaps(ratePerSecond: number, seed: number): Generator<number> {
  const random = mulberry32(seed);
  for (;;) yield (-Math.log(1 - random()) / ratePerSecond) * 1_000;
}

/** mulberry32, by Tommy Ettinger (public domain). */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
