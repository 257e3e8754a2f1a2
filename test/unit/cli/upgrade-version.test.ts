import { expect, test } from "vitest";
import { isNewer } from "../../../src/cli/device/upgrade/version.ts";

test("versions are ordered by their numbers, and a version with a suffix comes before its release", () => {
  const order = [
    "0.9.10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0",
    "1.0.1",
    "1.10.0",
    "10.0.0",
  ];
  for (const [index, one] of order.entries()) {
    for (const [place, other] of order.entries())
      expect(isNewer(one, other), `${one} > ${other}`).toBe(index > place);
  }
});

test("a text that is no version is never newer, and a build's number does not count", () => {
  for (const text of ["", "latest", "1.2", "1.2.3.4", "9999999999.0.0"])
    expect(isNewer(text, "0.0.1")).toBe(false);
  expect(isNewer("1.0.0+build.2", "1.0.0+build.1")).toBe(false);
  expect(isNewer("v1.0.1", "1.0.0")).toBe(true);
});
