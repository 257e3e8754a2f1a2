import { expect, test } from "vitest";
import { parseJson } from "../../../src/values/json.ts";

test.each([
  ["9007199254740991", 9007199254740991],
  ["9007199254740993", "9007199254740993"],
  ["-123456789012345678901234567890", "-123456789012345678901234567890"],
  ["1e999", "1e999"],
  ["-1E+400", "-1E+400"],
  ["1e20", 1e20],
  ["0.12345678901234567890", 0.12345678901234568],
  ['["12345678901234567890 \\" 1e999", {"12345678901234567890": 1}]', undefined],
  ['{"a\\\\":[12345678901234567890]}', { "a\\": ["12345678901234567890"] }],
])("%s", (text, expected) => {
  expect(parseJson(text)).toEqual(expected ?? JSON.parse(text));
});

test.each(["01234567890123456789", "12345678901234567890.", "1234567890123456e", "[1234567890123456", "NaN"])(
  "%s is no JSON",
  (text) => expect(() => parseJson(text)).toThrow(SyntaxError),
);

test("a name that objects have of themselves is a name like any other", () => {
  const parsed = parseJson('{"__proto__":{"x":12345678901234567890}}') as object;
  expect(Object.entries(parsed)).toEqual([["__proto__", { x: "12345678901234567890" }]]);
});
