/** `pinion device conformance`: plays the chosen cases and prints their results. */
import { type Cli, interruptSignal } from "../../cli.ts";
import type { GlobalOptions } from "../../context.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { table } from "../../print/table.ts";
import { parseWait } from "../../print/times.ts";
import { cases } from "./cases.ts";
import { playAll } from "./play.ts";
import type { CaseResult } from "./verdict.ts";

export type ConformanceOptions = GlobalOptions & {
  only?: string[];
  list?: boolean;
  agentKind?: string;
  jobs?: string;
  patience?: string;
};

const jobsMax = 16;

/** Prints the cases without playing them. */
export function list(cli: Cli, options: ConformanceOptions): void {
  if (options.json) {
    cli.out(
      JSON.stringify(
        cases.map(({ name, promise }) => ({ name, promise })),
        null,
        2,
      ),
    );
    return;
  }
  const lines = table(
    cases,
    [
      { header: "CASE", cell: ({ name }) => name },
      { header: "PROMISE", cell: ({ promise }) => promise },
    ],
    cli.columns,
  );
  for (const line of lines) cli.out(line);
}

/**
 * Plays the cases against the daemon that `words` start, and prints the results. Sets the exit code
 * for failed cases and for an interrupted run.
 */
export async function conformance(cli: Cli, words: string[], options: ConformanceOptions): Promise<void> {
  if (words.length === 0) {
    throw new Failure(
      exitCodes.usage,
      "there is no command that starts the daemon",
      "`pinion device conformance -- ./my-daemon`",
    );
  }
  const unknown = (options.only ?? []).filter((name) => !cases.some((scene) => scene.name === name));
  if (unknown.length > 0) {
    throw new Failure(
      exitCodes.usage,
      `there is no case "${unknown.join('", "')}"`,
      "--list shows them; the daemon's command goes after --",
    );
  }
  const jobs = Number(options.jobs);
  if (!Number.isInteger(jobs) || jobs < 1 || jobs > jobsMax) {
    throw new Failure(exitCodes.usage, `--jobs is a whole number from 1 to ${jobsMax}`);
  }
  const interrupt = interruptSignal();
  const { only } = options;
  const wanted = only ? cases.filter(({ name }) => only.includes(name)) : cases;
  try {
    const results = await playAll(wanted, {
      ...{ command: words, env: cli.env, agentKind: options.agentKind ?? "sh", jobs },
      patienceMs: parseWait(options.patience ?? "15s", "--patience"),
      signal: interrupt.signal,
      onResult: (result) => {
        if (!options.json) cli.note(`${mark(cli, result)} ${result.name}`);
      },
    });
    show(cli, results, options.json === true);
    if (interrupt.signal.aborted) cli.setExitCode(exitCodes.interrupted);
    else if (results.some(({ outcome }) => outcome === "fail")) cli.setExitCode(exitCodes.failed);
  } finally {
    interrupt.dispose();
  }
}

function mark(cli: Cli, { outcome }: CaseResult): string {
  const { green, red, yellow } = cli.colors;
  return { pass: green("✓"), fail: red("✗"), skip: yellow("–") }[outcome];
}

function show(cli: Cli, results: readonly CaseResult[], asJson: boolean): void {
  const count = (wanted: CaseResult["outcome"]) => results.filter(({ outcome }) => outcome === wanted).length;
  if (asJson) {
    const summary = { passed: count("pass"), failed: count("fail"), skipped: count("skip") };
    const cases = results.map(({ durationMs, ...result }) => ({ ...result, duration_ms: durationMs }));
    cli.out(JSON.stringify({ ...summary, cases }, null, 2));
    return;
  }
  const lines = table(
    results,
    [
      { header: "CASE", cell: ({ name }) => name },
      { header: "RESULT", cell: ({ outcome }) => outcome },
      { header: "TIME", cell: ({ durationMs }) => `${(durationMs / 1_000).toFixed(1)} s`, align: "right" },
      { header: "PROMISE", cell: ({ promise }) => promise, isFlexible: true },
    ],
    cli.columns,
  );
  for (const line of lines) cli.out(line);
  for (const { name, outcome, expected, seen, daemon } of results) {
    if (outcome === "pass") continue;
    cli.out("");
    cli.out(
      outcome === "skip" ? `${name} was skipped: ${seen}` : `${cli.colors.red(name)} expected: ${expected}`,
    );
    if (outcome === "fail") cli.out(`${" ".repeat(name.length)} seen:     ${seen}`);
    for (const line of daemon) cli.out(cli.colors.dim(`  | ${line}`));
  }
  cli.out("");
  cli.out(`${count("pass")} passed, ${count("fail")} failed, ${count("skip")} skipped`);
}
