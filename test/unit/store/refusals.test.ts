/**
 * The meaning of the database's refusals: a refusal is final only if the value itself is at fault.
 */
import pg from "pg";
import { describe, expect, test } from "vitest";
import { isFinal, isPassing, isUnavailable, mayBeOfOneRow } from "../../../src/store/pg/failures.ts";

const refusal = (code: string) =>
  Object.assign(new pg.DatabaseError("refused", 7, "error"), { code, severity: "ERROR" });

/** All classes of SQLSTATE in PostgreSQL 18, with the codes that matter here. */
const classes = {
  "08": ["08000", "08003", "08006", "08P01"],
  "09": ["09000"],
  "0A": ["0A000"],
  "0B": ["0B000"],
  "0F": ["0F000"],
  "0L": ["0L000"],
  "0P": ["0P000"],
  "0Z": ["0Z000"],
  "10": ["10608"],
  "20": ["20000"],
  "21": ["21000"],
  "22": ["22000", "22001", "22003", "22021", "22P02", "22P05", "22030"],
  "23": ["23000", "23502", "23503", "23505", "23514", "23P01"],
  "24": ["24000"],
  "25": ["25000", "25006", "25P02", "25P03"],
  "26": ["26000"],
  "27": ["27000"],
  "28": ["28000", "28P01"],
  "2B": ["2B000"],
  "2D": ["2D000"],
  "2F": ["2F000"],
  "34": ["34000"],
  "38": ["38000"],
  "39": ["39000"],
  "3B": ["3B000"],
  "3D": ["3D000"],
  "3F": ["3F000"],
  "40": ["40001", "40P01"],
  "42": ["42601", "42703", "42P01", "42501"],
  "44": ["44000"],
  "53": ["53000", "53100", "53200", "53300", "53400"],
  "54": ["54000", "54001"],
  "55": ["55000", "55P03"],
  "57": ["57014", "57P01", "57P02", "57P03", "57P04", "57P05"],
  "58": ["58000", "58030", "58P01"],
  "72": ["72000"],
  F0: ["F0000"],
  HV: ["HV000"],
  P0: ["P0001"],
  XX: ["XX000", "XX001", "XX002"],
};
const codes = Object.values(classes).flat();

test.each(codes)(
  "%s: a result that is refused so is invalid only in classes 22 and 23, and else is sent again",
  (code) => {
    const isOfValue = code.startsWith("22") || code.startsWith("23");
    expect(isFinal(refusal(code))).toBe(isOfValue);
    expect(isPassing(refusal(code))).toBe(!isOfValue);
  },
);

test.each(codes.filter((code) => /^(08|53|58)/.test(code)))(
  "%s: the database is away, as long as it says so",
  (code) => {
    expect(isUnavailable(refusal(code))).toBe(true);
    expect(mayBeOfOneRow(refusal(code))).toBe(false);
  },
);

describe("one row of many may be at fault", () => {
  test.each(["22P05", "23514", "42703", "54000", "P0001", "XX001"])(
    "%s: yes, the others are tried without it",
    (code) => {
      expect(mayBeOfOneRow(refusal(code))).toBe(true);
    },
  );
  test.each(["40001", "55P03", "57014", "25P02", "26000", "0A000", "28P01"])(
    "%s: no, it is the same for all",
    (code) => {
      expect(mayBeOfOneRow(refusal(code))).toBe(false);
    },
  );
});

test("an error that is not the database's is neither final nor passing, and may be one row's", () => {
  const mistake = new TypeError("cannot read properties of undefined");
  expect([isFinal(mistake), isPassing(mistake), mayBeOfOneRow(mistake)]).toEqual([false, false, true]);
  const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  expect([isFinal(reset), isPassing(reset), mayBeOfOneRow(reset)]).toEqual([false, true, false]);
});
