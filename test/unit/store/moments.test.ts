import pg from "pg";
import { expect, test } from "vitest";
import { parseMoment } from "../../../src/store/pg/values/moments.ts";

const timestamptz = 1184;

test("a moment is read as pg reads it, whatever its form", () => {
  const parse = pg.types.getTypeParser(timestamptz) as (text: string) => Date | number;
  for (const text of [
    "2026-11-29 23:01:02+00",
    "2026-11-29 23:01:02.5+00",
    "2026-11-29 23:01:02.05+00",
    "2026-11-29 23:01:02.123456+00",
    "2026-02-29 00:00:00.999999+00",
    "1969-12-31 23:59:59.001+00",
    "0099-03-01 12:00:00+00",
    "0001-01-01 00:00:00+00 BC",
    "12026-11-29 23:01:02+00",
    "2026-11-29 23:01:02+05:30",
    "2026-11-29 23:01:02.123-08",
    "infinity",
    "-infinity",
  ]) {
    expect([text, parseMoment(text)]).toEqual([text, parse(text)]);
  }
});
