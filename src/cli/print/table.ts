import { stripVTControlCharacters } from "node:util";
import { cut, displayWidth, padded } from "./width.ts";

export type Column<Row> = {
  header: string;
  /** Text of the cell; may have colours. */
  cell(row: Row): string;
  align?: "left" | "right";
  /** Shrinks on a narrow terminal. At most one column of a table is flexible. */
  isFlexible?: boolean;
};

const gap = "  ";
/** Minimum width of a flexible column in characters; below the minimum the line wraps. */
const flexibleWidthMin = 12;

/** Invisible characters, but for those that join letters or choose the form of an emoji. */
const invisible = /(?!\u200c|\u200d|\ufe0e|\ufe0f)\p{Default_Ignorable_Code_Point}/gu;
/** Marks upon marks reach over the lines above and below. */
const markTower = /(\p{M}{4})\p{M}+/gu;

/**
 * Foreign text (labels, reasons, output of programs) for a line: line breaks become spaces. Control
 * characters are dropped, because these could move the cursor or reverse the direction of the line;
 * invisible ones are dropped, so that equal names look equal.
 */
export function plain(text: string): string {
  return stripVTControlCharacters(text)
    .replace(/[\s\u0085]+/g, " ")
    .replace(/[\p{Cc}\p{Bidi_Control}]/gu, "")
    .replace(invisible, "")
    .replace(markTower, "$1")
    .trim();
}

/** The same for multi-line text; keeps line breaks and tabs. */
export function plainLines(text: string): string {
  return stripVTControlCharacters(text)
    .replace(/\r\n?/g, "\n")
    .replace(/(?![\n\t])[\p{Cc}\p{Bidi_Control}]/gu, "")
    .trimEnd();
}

/**
 * Lines of a table with a header. Empty columns are left out. A table that is wider than the
 * terminal becomes a block of lines for each row; with `isAligned` its lines are too wide instead.
 */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  widthMax: number,
  { isAligned = false }: { isAligned?: boolean } = {},
): string[] {
  const filled = columns
    .map((column) => ({ column, cells: rows.map((row) => onOneLine(column.cell(row))) }))
    .filter(({ cells }) => cells.some((cell) => cell !== ""));
  const widths = filled.map(({ column, cells }) =>
    Math.max(column.header.length, ...cells.map((cell) => displayWidth(cell))),
  );
  const flexible = filled.findIndex(({ column }) => column.isFlexible);
  const total = widths.reduce((sum, width) => sum + width, 0) + gap.length * (widths.length - 1);
  if (flexible >= 0 && total > widthMax) {
    widths[flexible] = Math.max(flexibleWidthMin, (widths[flexible] ?? 0) - (total - widthMax));
  }
  const fitted = widths.reduce((sum, width) => sum + width, 0) + gap.length * (widths.length - 1);
  if (fitted > widthMax && !isAligned) {
    const headers = filled.map(({ column }) => column.header);
    return rows.flatMap((_, row) =>
      block(
        headers,
        filled.map(({ cells }) => cells[row] ?? ""),
        widthMax,
      ),
    );
  }
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, index) => {
        const width = widths[index] ?? 0;
        const fitted = displayWidth(cell) > width ? cut(stripVTControlCharacters(cell), width) : cell;
        if (filled[index]?.column.align !== "right") return padded(fitted, width);
        return " ".repeat(Math.max(0, width - displayWidth(fitted))) + fitted;
      })
      .join(gap)
      .trimEnd();
  return [
    line(filled.map(({ column }) => column.header)),
    ...rows.map((_, row) => line(filled.map(({ cells }) => cells[row] ?? ""))),
  ];
}

/** A cell may have colours, but no line breaks and tabs, wherever its text is from. */
function onOneLine(cell: string): string {
  return cell.replace(/[\t\n\v\f\r\u0085\u2028\u2029]+/g, " ");
}

/**
 * A row as lines: the first cell, then "header cell" pairs, as many on a line as fit. Only a pair
 * that is wider than the terminal is cut.
 */
function block(headers: readonly string[], cells: readonly string[], widthMax: number): string[] {
  const [first = "", ...rest] = cells;
  const indent = gap;
  const lines = [displayWidth(first) > widthMax ? cut(stripVTControlCharacters(first), widthMax) : first];
  let line = "";
  for (const [index, cell] of rest.entries()) {
    if (cell === "") continue;
    const pair = `${headers[index + 1]?.toLowerCase()} ${cell}`;
    const joined = line === "" ? indent + pair : line + gap + pair;
    if (displayWidth(joined) <= widthMax) {
      line = joined;
      continue;
    }
    if (line !== "") lines.push(line);
    const alone = indent + pair;
    line = displayWidth(alone) > widthMax ? cut(stripVTControlCharacters(alone), widthMax) : alone;
  }
  return line === "" ? lines : [...lines, line];
}

/** Lines "name  value" of an object; pairs without a value are left out. */
export function details(
  pairs: readonly [name: string, value: string][],
  paint: (name: string) => string,
): string[] {
  const shown = pairs.filter(([, value]) => value !== "");
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => {
    const [first = "", ...rest] = value.split("\n");
    const indent = " ".repeat(width + gap.length);
    return [`${paint(name.padEnd(width))}${gap}${first}`, ...rest.map((line) => indent + line)].join("\n");
  });
}
