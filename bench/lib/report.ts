import { cpus, loadavg } from "node:os";

/** One line of a bench's table. Numbers are shown with three significant figures. */
export type Row = Record<string, string | number>;

export type Report = {
  bench: string;
  /** The time and the machine, so that figures of different machines are not compared. */
  at: string;
  machine: {
    cores: number;
    model: string;
    node: string;
    postgres: string;
    /**
     * The number of processes that wanted a core in the minute before: other load of the machine.
     */
    loadBefore?: number;
  };
  options: Record<string, unknown>;
  rows: Row[];
  /** The budgets: wanted and reached values, and whether the budget is met. */
  budgets: { what: string; wanted: string; reached: string; isMet: boolean }[];
};

export function machine(postgres: string): Report["machine"] {
  return {
    cores: cpus().length,
    model: cpus()[0]?.model ?? "",
    node: process.version,
    postgres,
    loadBefore: loadavg()[0]!,
  };
}

export function print(report: Report): void {
  const { bench, at, machine } = report;
  console.log(
    `\n${bench}  ${at}  ${machine.cores} cores, ${machine.model}, Node ${machine.node}, PostgreSQL ${machine.postgres}`,
  );
  console.log(table(report.rows));
  for (const { what, wanted, reached, isMet } of report.budgets) {
    console.log(`  ${isMet ? "met " : "MISS"}  ${what}: ${reached} (wanted ${wanted})`);
  }
}

function table(rows: readonly Row[]): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = [names, ...rows.map((row) => names.map((name) => shown(row[name])))];
  const widths = names.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  const lines = cells.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join("  "),
  );
  return lines.map((line) => `  ${line}`).join("\n");
}

export function shown(value: string | number | undefined): string {
  if (value === undefined) return "";
  if (typeof value === "string") return value;
  if (Number.isInteger(value) || Math.abs(value) >= 1_000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

type Budget = Report["budgets"][number];

export function atMost(what: string, value: number, limit: number): Budget {
  return { what, wanted: `≤ ${limit}`, reached: shown(value), isMet: value <= limit };
}

export function atLeast(what: string, value: number, limit: number): Budget {
  return { what, wanted: `≥ ${limit}`, reached: shown(value), isMet: value >= limit };
}
