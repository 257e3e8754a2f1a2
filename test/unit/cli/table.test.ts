import { stripVTControlCharacters } from "node:util";
import { expect, test } from "vitest";
import { type Column, details, plain, plainLines, table } from "../../../src/cli/print/table.ts";
import { cut, displayWidth, padded } from "../../../src/cli/print/width.ts";

type Row = { name: string; count: string; reason: string };
const columns: Column<Row>[] = [
  { header: "NAME", cell: (row) => row.name },
  { header: "N", cell: (row) => row.count, align: "right" },
  { header: "REASON", cell: (row) => row.reason, isFlexible: true },
];

test("columns line up, whatever colours their cells have", () => {
  const rows = [
    { name: "\u001b[32ma\u001b[39m", count: "1", reason: "x" },
    { name: "bcd", count: "22", reason: "y" },
  ];
  expect(table(rows, columns, Number.POSITIVE_INFINITY)).toEqual([
    "NAME   N  REASON",
    "\u001b[32ma\u001b[39m      1  x",
    "bcd   22  y",
  ]);
});

test("a column in which nothing is written is left out", () => {
  expect(table([{ name: "a", count: "", reason: "" }], columns, 80)).toEqual(["NAME", "a"]);
});

test("the flexible column gives way on a narrow terminal", () => {
  const lines = table([{ name: "a", count: "1", reason: "a reason that is rather long" }], columns, 26);
  expect(lines[1]).toBe("a     1  a reason that is…");
  expect(lines[1]).toHaveLength(26);
});

test("a table wider than the terminal becomes blocks, in which nothing is lost and no line is wider", () => {
  const wide: Column<Row>[] = [
    { header: "ID", cell: (row) => row.name },
    { header: "COUNT", cell: (row) => `\u001b[31m${row.count}\u001b[39m` },
    { header: "REASON", cell: (row) => row.reason },
    { header: "NONE", cell: (row) => (row.count === "2" ? "some" : "") },
  ];
  const id = "0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e";
  const rows = [
    { name: id, count: "1", reason: "short" },
    { name: id, count: "2", reason: "x".repeat(60) },
  ];
  const lines = table(rows, wide, 40);
  for (const line of lines) expect(stripVTControlCharacters(line).length).toBeLessThanOrEqual(40);
  expect(lines.map(stripVTControlCharacters)).toEqual([
    ...[id, "  count 1  reason short"],
    ...[id, "  count 2", `  reason ${"x".repeat(30)}…`, "  none some"],
  ]);
  // Programs get the whole table.
  expect(table(rows, wide, Number.POSITIVE_INFINITY)).toHaveLength(3);
});

test("text from elsewhere cannot move the cursor or break the line", () => {
  expect(plain("a\n\u001b[2Jb\u0007\r\nc\u009b1m")).toBe("a b c");
  expect(plain("run\u202eexe.txt\u2066")).toBe("runexe.txt");
  expect(plainLines("a\r\n\tb\u001b[2J\u0007\u202ec\n\n")).toBe("a\n\tbc");
});

test("cutting counts characters, not halves of them", () => {
  expect(cut("🙂🙂🙂", 3)).toBe("🙂…");
  expect(cut("🙂🙂🙂", 2)).toBe("…");
  expect(cut("e\u0301e\u0301e\u0301", 2)).toBe("e\u0301…");
  expect(cut("👩\u200d👩\u200d👧ab", 3)).toBe("👩\u200d👩\u200d👧…");
  expect(cut("abc", 3)).toBe("abc");
});

test.each([
  ["abc", 3],
  ["\u001b[31mabc\u001b[0m", 3],
  ["日本語", 6],
  ["ｗｅｂ", 6],
  ["한국", 4],
  ["e\u0301", 1],
  ["a\u200b\u2060b", 2],
  ["👩\u200d👩\u200d👧", 2],
  ["🇩🇪", 2],
  ["❤\ufe0f", 2],
  ["❤ ✓ · … –", 9],
  ["עברית", 5],
  ["𠮷", 2],
])("%j takes %d cells", (text, cells) => {
  expect(displayWidth(text)).toBe(cells);
  expect(displayWidth(padded(text, 10))).toBe(10);
});

test("columns line up beside wide, marked and invisible characters, and a cell is one line", () => {
  const names = ["日本語", "e\u0301", "a\u200bb", "👩\u200d👩\u200d👧", "a\nb\tc\u2028d", "web"];
  const lines = table(
    names.map((name) => ({ name, count: "1", reason: "x" })),
    columns,
    40,
  );
  expect(lines).toHaveLength(names.length + 1);
  for (const line of lines.slice(1)) {
    expect(line).not.toMatch(/[\n\t\u2028]/);
    expect(displayWidth(line.slice(0, line.lastIndexOf("1")))).toBe(9);
  }
});

test("equal names look equal, marks stay on their line, and letters that join still do", () => {
  expect(plain("we\u200bb\u2060\ufeff\u00ad\u{e0041}\u3164")).toBe("web");
  expect(plain(`a${"\u0301".repeat(500)}b`)).toBe(`a${"\u0301".repeat(4)}b`);
  expect(plain("می\u200cخواهم 👩\u200d👧 ❤\ufe0f")).toBe("می\u200cخواهم 👩\u200d👧 ❤\ufe0f");
});

test("pairs without a value are not shown, and further lines are indented", () => {
  expect(
    details(
      [
        ["a", "1"],
        ["none", ""],
        ["long", "x\ny"],
      ],
      (name) => name,
    ),
  ).toEqual(["a     1", "long  x\n      y"]);
});
