/** The seed of this run: PINION_FUZZ_SEED, or a new seed. The seed is printed for a repetition. */
export function seedOfRun(name: string): number {
  const seed = Number(process.env.PINION_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
  process.stderr.write(`  ${name}: PINION_FUZZ_SEED=${seed}\n`);
  return seed;
}

/**
 * The duration of a random attack, in milliseconds: a share of PINION_FUZZ_MINUTES, or 4 s without
 * the variable.
 */
export function fuzzMs(share = 1): number {
  const minutes = Number(process.env.PINION_FUZZ_MINUTES ?? 0);
  return minutes > 0 ? minutes * 60_000 * share : 4_000;
}
