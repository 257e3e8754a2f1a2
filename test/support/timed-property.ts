import fc from "fast-check";

/** Values are checked until the time is over; never that many. */
const valuesMax = 10_000;

/**
 * Checks a property of an arbitrary's values for `limitMs` milliseconds. Prints the seed, which
 * PINION_TEST_SEED repeats. fast-check leaves the value that is being checked when the time is
 * over; here the value is checked to its end, because a database that closes meanwhile would be
 * asked on and on.
 */
export async function checkFor<Value>(
  { name, limitMs, examples = [] }: { name: string; limitMs: number; examples?: Value[] },
  arbitrary: fc.Arbitrary<Value>,
  check: (value: Value) => Promise<void>,
): Promise<void> {
  const given = process.env.PINION_TEST_SEED;
  const seed = given ? Number(given) : Math.trunc(Math.random() * 2 ** 31);
  process.stdout.write(`${name}: PINION_TEST_SEED=${seed}\n`);
  let last = Promise.resolve();
  const property = fc.asyncProperty(arbitrary, (value) => {
    last = check(value);
    return last;
  });
  const parameters = { seed, numRuns: valuesMax, interruptAfterTimeLimit: limitMs };
  try {
    await fc.assert(property, { ...parameters, examples: examples.map((value) => [value] as [Value]) });
  } catch (error) {
    await last.catch(() => {});
    throw error;
  }
  await last;
}
