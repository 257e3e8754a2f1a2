/** Regular expressions in filters and selectors: their time has a bound, whoever writes them. */
import { expect, test } from "vitest";
import { compile, deliveryNames } from "../../../src/cel/expression.ts";
import { partsOfPattern } from "../../../src/cel/patterns.ts";
import { selectorProblem } from "../../../src/cel/selector.ts";

const evaluate = (text: string, input: object) =>
  compile(text, deliveryNames).evaluate({ input: input as never, event: "e", headers: {} });
const wide = "(?:\\\\pL|1\\\\pN|2\\\\pS)";

test.each([
  [
    "a short pattern with a large program",
    () => evaluate(`'x'.matches('${wide}{900}')`, {}),
    /has \d+ parts/,
  ],
  [
    "a pattern compiled for each element",
    () => evaluate(`input.l.exists(i, 'x'.matches('${wide}{900}'))`, { l: Array(5_000).fill(1) }),
    /has \d+ parts/,
  ],
  [
    "a pattern that visits many of its parts at each character",
    () => evaluate("input.a.matches('(?:[ab]{0,30}){0,30}$')", { a: "ab".repeat(30_000) }),
    /would take too long/,
  ],
  [
    "many patterns of a payload",
    () =>
      evaluate("input.p.exists(p, 'x'.matches(p))", {
        p: Array.from({ length: 2_000 }, (_, index) => `\\pL{${999 - (index % 900)}}`),
      }),
    /would take too long/,
  ],
  [
    "a long pattern of a payload",
    () => evaluate("input.p.exists(p, 'x'.matches(p))", { p: ["[".repeat(30_000)] }),
    /has 30000 parts/,
  ],
])("%s is refused with words, and soon", (_, attack, words) => {
  const startedAt = process.cpuUsage().user;
  expect(attack).toThrow(words);
  expect(process.cpuUsage().user - startedAt).toBeLessThan(2_000_000);
});

test("ordinary patterns of ordinary payloads pass", () => {
  const uuid = "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}";
  expect(evaluate(`input.id.matches('^${uuid}$')`, { id: crypto.randomUUID() })).toBe(true);
  const body = `${"text ".repeat(10_000)}deploy this`;
  expect(evaluate("input.body.matches('(?i)\\\\b(deploy|release|roll ?back)\\\\b')", { body })).toBe(true);
  expect(selectorProblem('labels.exists(l, l.matches("^team=[a-z]{1,20}$"))')).toBeUndefined();
});

test("a pattern that cannot be read, or is too large, is refused when it is stored", () => {
  expect(selectorProblem("os.matches('(?=a)')")).toMatch(/is none of RE2/);
  expect(selectorProblem(`os.matches('${wide}{900}')`)).toMatch(/parts/);
  expect(selectorProblem("matches(os, '(')")).toMatch(/is none of RE2/);
});

test.each([
  ["abc", 3],
  ["a{3}", 3],
  ["(?:ab){2,5}", 25],
  ["a{4,}", 5],
  ["[]a-z{9}]{7}", 7],
  ["[[:alpha:]]{7}", 7],
  ["\\pL{7}", 8],
  ["\\p{Greek}{7}", 7],
  ["\\Q(((\\E{7}", 9],
  ["((a{10}){10}){10}", 1_110],
  ["\\{9}", 3],
  ["x{,9}", 5],
])("%s has at most %d parts", (pattern, parts) => {
  expect(partsOfPattern(pattern)).toBe(parts);
});
