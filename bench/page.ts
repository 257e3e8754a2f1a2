/**
 * `npm run bench:page -- FILE …`: copies reports (written by `npm run bench -- NAME --json FILE`)
 * into bench/results/, and renders the tables and the plots of docs/performance.md from all results
 * there. Without files, only renders.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { plotOf } from "./lib/plot.ts";
import { type Report, shown } from "./lib/report.ts";

const pathOf = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const results = pathOf("bench/results");
const page = pathOf("docs/performance.md");

export function readReports(): Report[] {
  return readdirSync(results)
    .filter((name) => name.endsWith(".json"))
    .sort()
    .map((name) => JSON.parse(readFileSync(`${results}/${name}`, "utf8")) as Report);
}

/**
 * The page, with each table replaced by the table of its bench's report, and the goals of all
 * reports at its beginning.
 */
export function renderPage(text: string, reports: readonly Report[]): string {
  const withTables = reports.reduce(
    (rendered, report) => place(rendered, report.bench, sectionOf(report)),
    text,
  );
  return place(withTables, "goals", goalsOf(reports));
}

/** The text with `content` between the marks of the name. */
function place(text: string, name: string, content: string): string {
  const [begin, end] = [`<!-- bench: ${name} -->`, `<!-- end: ${name} -->`];
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`docs/performance.md has no place for "${name}"`);
  return `${text.slice(0, from + begin.length)}\n${content}\n${text.slice(to)}`;
}

const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;

/** How many goals are met, and the goals that are missed. */
function goalsOf(reports: readonly Report[]): string {
  const goals = reports.flatMap(({ bench, budgets }) => budgets.map((goal) => ({ bench, ...goal })));
  const missed = goals.filter(({ isMet }) => !isMet);
  return [
    "",
    `${goals.length - missed.length} of ${goals.length} goals are met. These are missed; each table below has its own goals.`,
    "",
    line(["bench", "goal", "wanted", "reached"]),
    line(["---", "---", "---:", "---:"]),
    ...missed.map(({ bench, what, wanted, reached }) => line([`\`${bench}\``, what, wanted, reached])),
    "",
  ].join("\n");
}

/** File names and contents. */
export function renderPlots(reports: readonly Report[]): Map<string, string> {
  const plots = new Map<string, string>();
  const find = (name: string) => reports.find((report) => report.bench === name);
  const lifecycle = find("lifecycle");
  if (lifecycle) {
    plots.set(
      "docs/images/performance-lifecycle.svg",
      plotOf({
        title: "Runs or jobs a second, whole life, durable; longer is better",
        bars: lifecycle.rows.map((row) => ({
          label: String(row[""]),
          values: [{ value: Number(row["per second"]), text: shown(Number(row["per second"])) }],
        })),
      }),
    );
  }
  const latency = find("latency");
  if (latency) {
    plots.set(
      "docs/images/performance-latency.svg",
      plotOf({
        title: "Milliseconds at 100 a second, p50 and p99, on a logarithmic axis; shorter is better",
        isLogarithmic: true,
        bars: latency.rows.map((row) => ({
          label: String(row.milliseconds),
          values: (["p50", "p99"] as const).map((name) => ({
            value: Number(row[name]),
            text: `${name} ${shown(Number(row[name]))}`,
          })),
        })),
      }),
    );
  }
  return plots;
}

function sectionOf({ at, machine, rows, budgets }: Report): string {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const when = `Measured ${at.slice(0, 10)}: ${machine.cores} cores (${machine.model}), Node ${machine.node}, PostgreSQL ${machine.postgres}${
    machine.loadBefore === undefined ? "" : `; load average before it ${machine.loadBefore.toFixed(1)}`
  }.`;
  return [
    "",
    when,
    "",
    line(names),
    line(names.map((_, index) => (index === 0 ? "---" : "---:"))),
    ...rows.map((row) => line(names.map((name) => shown(row[name])))),
    ...(budgets.length === 0
      ? []
      : [
          "",
          line(["goal", "wanted", "reached", ""]),
          line(["---", "---:", "---:", "---"]),
          ...budgets.map(({ what, wanted, reached, isMet }) =>
            line([what, wanted, reached, isMet ? "met" : "**missed**"]),
          ),
        ]),
    "",
  ].join("\n");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(results, { recursive: true });
  for (const file of process.argv.slice(2)) {
    for (const report of JSON.parse(readFileSync(file, "utf8")) as Report[]) {
      writeFileSync(`${results}/${report.bench}.json`, `${JSON.stringify(report, null, 2)}\n`);
    }
  }
  const reports = readReports();
  writeFileSync(page, renderPage(readFileSync(page, "utf8"), reports));
  for (const [name, svg] of renderPlots(reports)) writeFileSync(pathOf(name), svg);
}
