import type { Command } from "commander";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { type GlobalOptions, optionsOf } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { table } from "../print/table.ts";
import { parseLength } from "../print/times.ts";
import { cases } from "./conformance/cases.ts";
import { playAll } from "./conformance/play.ts";
import type { CaseResult } from "./conformance/verdict.ts";

type ConformanceOptions = GlobalOptions & {
  only?: string[];
  list?: boolean;
  agentKind?: string;
  jobs?: string;
  patience?: string;
};

const jobsMax = 16;

const contract = `
The command starts the daemon, once for each case and again after it was killed. It is told by its environment:
  PINION_URL         the server to dial, by gRPC without TLS
  PINION_STATE_DIR   where its outbox belongs; identity.json is there, as \`pinion device enroll\` writes it:
                     install_id, device_id, org_id, token, url
  PINION_TOKEN, PINION_INSTALL_ID   the same token and install_id, for daemons that read no file
For --agent-kind it has an executor that gives the prompt to \`sh\` on its standard input.
What the cases expect is written in docs/protocol.md.`;

/**
 * `pinion device conformance`: plays a server against any daemon and reports violations of the
 * protocol.
 */
export function addConformance(device: Command, cli: Cli): void {
  const command = device
    .command("conformance")
    .description("play a server against a daemon in any language, and report what it does wrong")
    .argument("[command...]", "starts the daemon; put it after --")
    .option("--only <case...>", "these cases")
    .option("--list", "the cases, without playing them")
    .option("--agent-kind <kind>", "the executor that runs a prompt with sh", "sh")
    .option("--jobs <number>", "cases at once, 1 to 16", "4")
    .option("--patience <length>", "how long a case waits for what it expects", "15s")
    .action(async (words: string[], _options, command: Command) => {
      const options = optionsOf<ConformanceOptions>(command);
      if (options.list) return list(cli, options);
      await conformance(cli, words, options);
    });
  command.addHelpText("after", contract);
  examples(command, [
    ["device conformance -- python examples/python/daemon.py sh", "exit code 1 if a case fails"],
    ["device conformance --only cancel drain -- ./daemon sh", "only these"],
    ["device conformance --list", "what is checked"],
  ]);
}

function list(cli: Cli, options: ConformanceOptions): void {
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

async function conformance(cli: Cli, words: string[], options: ConformanceOptions): Promise<void> {
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
  const wanted = options.only ? cases.filter(({ name }) => options.only!.includes(name)) : cases;
  try {
    const results = await playAll(wanted, {
      ...{ command: words, env: cli.env, agentKind: options.agentKind ?? "sh", jobs },
      patienceMs: parseLength(options.patience ?? "15s", "--patience"),
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
