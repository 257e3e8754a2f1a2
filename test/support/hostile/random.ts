/** Randomness that a seed brings back (mulberry32). */
export type Random = {
  /** From 0 to below 1. */
  next(): number;
  /** A whole number, both ends included. */
  between(least: number, most: number): number;
  pick<T>(items: readonly T[]): T;
  bytes(count: number): Buffer;
};

export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
  const between = (least: number, most: number) => least + Math.floor(next() * (most - least + 1));
  return {
    next,
    between,
    pick: (items) => items[between(0, items.length - 1)]!,
    bytes(count) {
      const bytes = Buffer.alloc(count);
      for (let index = 0; index < count; index += 1) bytes[index] = between(0, 255);
      return bytes;
    },
  };
}

/** The seed of this run: PINION_FUZZ_SEED, or a new one. It is printed, so that it can be given again. */
export function seedOfRun(name: string): number {
  const seed = Number(process.env.PINION_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
  process.stderr.write(`  ${name}: PINION_FUZZ_SEED=${seed}\n`);
  return seed;
}

/** How long a random attack goes on, in milliseconds: PINION_FUZZ_MINUTES shared by all of them, or a moment. */
export function fuzzMs(share = 1): number {
  const minutes = Number(process.env.PINION_FUZZ_MINUTES ?? 0);
  return minutes > 0 ? minutes * 60_000 * share : 4_000;
}
