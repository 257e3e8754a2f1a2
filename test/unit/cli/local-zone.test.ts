import { expect, test } from "vitest";
import { findLocalZone, localTimeZone } from "../../../src/cli/print/local-zone.ts";

test.each([
  ["", "UTC"],
  [":", "UTC"],
  ["Europe/Berlin", "Europe/Berlin"],
  [":Europe/Berlin", "Europe/Berlin"],
  ["/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin"],
  [":/usr/share/zoneinfo/posix/Asia/Tokyo", "Asia/Tokyo"],
  ["UTC", "UTC"],
  ["BST", undefined],
  ["CET-1CEST", undefined],
  ["Mars/Olympus_Mons", undefined],
  ["/no/such/file", undefined],
])("TZ=%s is the zone %s", (text, zone) => {
  expect(findLocalZone({ TZ: text })).toBe(zone);
});

test("a TZ that is no zone is said, with the likely one and how to go on", () => {
  expect(() => localTimeZone({ TZ: "BST" })).toThrow(
    /TZ: time zone "BST" is an abbreviation.*Europe\/London/,
  );
  expect(() => localTimeZone({ TZ: "Europe/Berln" })).toThrow(/did you mean "Europe\/Berlin"/);
});

test("without TZ it is the system's, as Node or the system's file names it", () => {
  const found = findLocalZone({});
  expect(found === undefined || found.includes("/") || found === "UTC").toBe(true);
});
