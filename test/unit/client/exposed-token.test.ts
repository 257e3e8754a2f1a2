import { expect, test } from "vitest";
import { isTokenExposed } from "../../../clients/ts/src/device/options.ts";

test.each([
  ["http://127.0.0.1:7420", false],
  ["http://127.1", false],
  ["http://[::1]:7420", false],
  ["http://localhost", false],
  ["https://pinion.example", false],
  ["http://127.pinion.example", true],
  ["http://localhost.pinion.example", true],
  ["http://pinion.example", true],
])("a token for %s travels readable: %s", (url, isExposed) => {
  expect(isTokenExposed(url)).toBe(isExposed);
});
