import { expect, test } from "vitest";
import { describe, shown } from "../../../src/store/people/changes.ts";

test("an edit is told field by field, from what to what, whatever the order of keys", () => {
  expect(
    describe({ a: 1, b: { x: 1, y: 2 }, c: "same" }, { a: 2, b: { y: 2, x: 1 }, c: "same", d: ["new"] }),
  ).toEqual({
    changed: ["a", "d"],
    changes: { a: { from: 1, to: 2 }, d: { from: null, to: ["new"] } },
  });
});

test("secrets are masked by their names, also within objects, and passwords in URLs", () => {
  expect(shown("config.bot_token", "s3cret")).toBe("***");
  expect(shown("env", { apiKey: "s3cret", region: "eu", deep: [{ password: "s3cret" }] })).toEqual({
    apiKey: "***",
    region: "eu",
    deep: [{ password: "***" }],
  });
  expect(shown("url", "https://me:s3cret@host/path")).toBe("https://me:***@host/path");
});

test("a long text and a large value are cut", () => {
  expect(shown("prompt", "x".repeat(1_000))).toBe(`${"x".repeat(300)}… (1000 characters)`);
  expect(
    String(
      shown(
        "list",
        Array.from({ length: 1_000 }, (_, i) => i),
      ),
    ).length,
  ).toBeLessThan(400);
});
