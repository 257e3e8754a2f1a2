/** docs/lifecycles.md agrees with the code. */
import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { transitions } from "../../clients/ts/src/device/lifecycle.ts";
import { attemptTransitions } from "../../src/server/device/attempts/outstanding.ts";
import { reactions } from "../../src/server/device/session/session-table.ts";

const root = new URL("../../", import.meta.url);
const doc = readFileSync(new URL("docs/lifecycles.md", root), "utf8");

/** Cells of the table after a line of the document, without their backticks. */
function tableAfter(line: string): string[][] {
  const from = doc.indexOf(line);
  if (from < 0) throw new Error(`docs/lifecycles.md has no line "${line}"`);
  const [, table] = /\n((?:\|.*\n)+)/.exec(doc.slice(from)) ?? [];
  return table!
    .trim()
    .split("\n")
    .filter((row) => !row.startsWith("|---") && !row.startsWith("| ---"))
    .map((row) =>
      row
        .slice(1, -1)
        .split(" | ")
        .map((cell) => cell.trim()),
    );
}

function rowsOf(corner: string, table: Record<string, Record<string, string | null>>): string[][] {
  const states = Object.keys(table);
  const events = Object.keys(Object.values(table)[0]!);
  return [
    [corner, ...states.map((state) => `\`${state}\``)],
    ...events.map((event) => [`\`${event}\``, ...states.map((state) => table[state]![event] ?? "–")]),
  ];
}

test("the table of a device's session in the docs is the code's", () => {
  expect(tableAfter("<!-- reactions of")).toEqual(rowsOf("message", reactions));
});

test("the table of an attempt that is out at a device in the docs is the code's", () => {
  expect(tableAfter("<!-- attempts of")).toEqual(rowsOf("event", attemptTransitions));
});

test("the table of a device's connection in the docs is the code's", () => {
  expect(tableAfter("<!-- transitions of")).toEqual(rowsOf("event", transitions));
});

test("every invariant has a test file, whose tests carry its number", () => {
  const [, ...rows] = tableAfter("## Invariants");
  expect(rows.map(([number]) => number)).toEqual(Array.from({ length: 10 }, (_, i) => `R${i + 1}`));
  const [, ...ofTurns] = tableAfter("Two things always hold");
  expect(ofTurns.map(([number]) => number)).toEqual(["T1", "T2"]);
  for (const [number, , , files] of [...rows, ...ofTurns]) {
    for (const path of files!.replaceAll("`", "").split(", ")) {
      expect(existsSync(new URL(path, root)), path).toBe(true);
      expect(readFileSync(new URL(path, root), "utf8")).toMatch(new RegExp(`test\\(\\s*["\`]${number}: `));
    }
  }
});
