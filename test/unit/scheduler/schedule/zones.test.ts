import { expect, test } from "vitest";
import { explainZone, isZone, likelyZone } from "../../../../src/scheduler/schedule/zones.ts";

test("zones and links of the IANA database are taken, as it spells them", () => {
  for (const name of [
    "UTC",
    "GMT",
    "Etc/UTC",
    "Etc/GMT+5",
    "Europe/Berlin",
    "Europe/Kyiv",
    "Europe/Kiev",
    "Asia/Kolkata",
    "Asia/Calcutta",
    "US/Eastern",
    "America/Argentina/Buenos_Aires",
    "America/Port-au-Prince",
    "Antarctica/Troll",
    "NZ",
    "Japan",
  ]) {
    expect(isZone(name), name).toBe(true);
  }
  for (const name of Intl.supportedValuesOf("timeZone")) expect(isZone(name), name).toBe(true);
});

test("abbreviations are no zones, and the likely one is told", () => {
  const likely = {
    ...{ BST: "Europe/London", ACT: "Australia/Sydney", AET: "Australia/Sydney", CTT: "Asia/Shanghai" },
    ...{ IST: "Asia/Kolkata", VST: "Asia/Ho_Chi_Minh", EST: "America/New_York", MST: "America/Denver" },
    ...{ HST: "Pacific/Honolulu", PST8PDT: "America/Los_Angeles", EST5EDT: "America/New_York" },
    ...{ CET: "Europe/Berlin", CEST: "Europe/Berlin", WET: "Europe/Lisbon", JST: "Asia/Tokyo" },
    ...{ bst: "Europe/London", PST: "America/Los_Angeles" },
  };
  for (const [name, zone] of Object.entries(likely)) {
    expect(isZone(name), name).toBe(false);
    expect(explainZone(name), name).toContain(`is an abbreviation`);
    expect(explainZone(name), name).toContain(`did you mean "${zone}"?`);
  }
});

test("the zone that was meant is told of typing errors, places and spellings", () => {
  const meant = {
    ...{ "Europe/Berln": "Europe/Berlin", "europe/berlin": "Europe/Berlin", Berlin: "Europe/Berlin" },
    ...{
      "America/New York": "America/New_York",
      "New York": "America/New_York",
      newyork: "America/New_York",
    },
    ...{
      "São Paulo": "America/Sao_Paulo",
      ":Europe/Berlin": "Europe/Berlin",
      utc: "UTC",
      "UTC+2": "Etc/GMT-2",
    },
    ...{
      "/usr/share/zoneinfo/Asia/Tokyo": "Asia/Tokyo",
      "Amercia/Chicago": "America/Chicago",
      Tokio: "Asia/Tokyo",
    },
  };
  for (const [name, zone] of Object.entries(meant)) {
    expect(isZone(name), name).toBe(false);
    expect(likelyZone(name), name).toBe(zone);
  }
  for (const name of ["", "Mars/Olympus_Mons", "SystemV/EST5", "Etc/Unknown", "Factory", "right/UTC"]) {
    expect(isZone(name), name).toBe(false);
    expect(explainZone(name), name).toMatch(/did you mean|such as "Europe\/Berlin"/);
  }
});
