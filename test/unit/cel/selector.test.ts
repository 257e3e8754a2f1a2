import { expect, test } from "vitest";
import { matches, selectorProblem } from "../../../src/cel/selector.ts";

const mac = { os: "macos", arch: "arm64", labels: ["gpu", "has:claude-code", "team=web"] };
const box = { os: "linux", arch: "x64", labels: [] };

test.each([
  ['os == "macos" && "gpu" in labels', true, false],
  ['arch == "x64"', false, true],
  ['labels.exists(l, l.startsWith("team="))', true, false],
  ['!("gpu" in labels) || os == "windows"', false, true],
  ['os in ["linux", "macos"]', true, true],
  ["size(labels) == 0", false, true],
  ['labels[0] == "gpu"', true, false],
  ["true", true, true],
])("%s selects by what a device is", (selector, isMac, isBox) => {
  expect(selectorProblem(selector)).toBeUndefined();
  expect([matches(selector, mac), matches(selector, box)]).toEqual([isMac, isBox]);
});

test.each([
  ["os ==", /it is no CEL expression/],
  ["", /it is no CEL expression/],
  ["os", /no condition: its value is a text/],
  ["size(labels)", /no condition: its value is a number/],
  ['platform == "macos"', /there is no "platform"; there are "os", "arch" and "labels"/],
  ["labels.exists(l, l == other)", /there is no "other"/],
  ['os + 1 == "x"', /overload/],
  ["labels.all(a, labels.all(b, a == b))", /loop within a loop/],
  [`os == "${"x".repeat(1_000)}"`, /has 1008 characters, and may have 1000/],
  [Array.from({ length: 100 }, () => "true").join("||"), undefined],
  [Array.from({ length: 160 }, () => "1<2").join("||"), /more than 250 parts/],
])("%s is judged with words", (selector, words) => {
  const problem = selectorProblem(selector);
  if (words) expect(problem).toMatch(words);
  else expect(problem).toBeUndefined();
});

test("a pattern that would take for ever elsewhere takes no time", () => {
  const facts = { os: `${"a".repeat(5_000)}!`, arch: "", labels: [] };
  const startedAt = performance.now();
  expect(matches('os.matches("^(a+)+$")', facts)).toBe(false);
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});
