/** A prompt that names a large value many times is refused without being written out. */
import { expect, test } from "vitest";
import { problemOf } from "../../src/values/input.ts";

test("a value of 64 KiB that is named a hundred times costs a moment, and the message says what to do", () => {
  let value: unknown = Array(30_000).fill(1);
  for (let level = 0; level < 25; level++) value = [value];
  const startedAt = performance.now();
  const problem = problemOf("{{ input.a }}".repeat(100), { a: value } as never);
  expect(performance.now() - startedAt).toBeLessThan(500);
  expect(problem).toMatch(/may have 1048576 bytes, and has more; name smaller values/);
  expect(problemOf("{{ input.a }}".repeat(100), { a: "short" })).toBeUndefined();
});
