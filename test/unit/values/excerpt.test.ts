import { expect, test } from "vitest";
import { excerpt } from "../../../src/values/excerpt.ts";

test("a short text stays what it is", () => {
  expect(excerpt("abc", 3)).toBe("abc");
  expect(excerpt("", 3)).toBe("");
  expect(excerpt("\u{1f600}", 2)).toBe("\u{1f600}");
});

test("a long text is cut, never through the middle of a character", () => {
  expect(excerpt("abcd", 3)).toBe("abc…");
  expect(excerpt("ab\u{1f600}", 3)).toBe("ab…");
  expect(excerpt("a\u{1f600}b", 3)).toBe("a\u{1f600}…");
  expect(excerpt("\u{1f600}", 1)).toBe("…");
});

test("what PostgreSQL stores in no text is replaced", () => {
  expect(excerpt("a\ud83db\ude00c\0d", 100)).toBe("a\u{fffd}b\u{fffd}c\u{fffd}d");
  expect(excerpt("ab\ud83d", 3)).toBe("ab\u{fffd}");
});
