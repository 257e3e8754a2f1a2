import type { Command } from "commander";
import { InvalidArgumentError } from "commander";
import { isReference } from "../../secrets.ts";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { connect, optionsOf } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { canConfirm, confirm } from "../print/confirm.ts";
import { list } from "../print/paging.ts";
import { ProgressView } from "./execute/progress.ts";
import { verify } from "./execute/verify.ts";
import { type Desired, desiredOf } from "./file/desired.ts";
import { type ParsedFile, readFile } from "./file/file.ts";
import { type KeyPath, placeKey } from "./file/places.ts";
import { type Problem, pathText } from "./file/problems.ts";
import { jsonSchema } from "./file/shape.ts";
import { work } from "./plan/plan.ts";
import type { Kind, Plan, Step } from "./plan/steps.ts";
import { countsText, planJson, planLines } from "./plan/view.ts";
import { applyPlan, type Failed, planFile } from "./run.ts";
import { readState } from "./state.ts";

type Options = {
  file: string;
  dryRun?: boolean;
  yes?: boolean;
  only?: string[];
  prune?: boolean;
  exitCode?: boolean;
  printSchema?: boolean;
};

const kinds: Record<string, Kind> = {
  ...{ agents: "agent", destinations: "destination", platforms: "platform", watchers: "watcher" },
  ...{ hooks: "hook", devices: "device" },
};

/** `pinion apply`: brings the org to the state in a file. */
export function addApply(program: Command, cli: Cli): void {
  const command = program
    .command("apply")
    .description(
      "make agents, destinations, platforms, watchers, hooks and labels of devices what a file says; shows the plan first, and asks",
    )
    .option("-f, --file <file>", 'the file; "-" reads standard input', "pinion.toml")
    .option("--dry-run", "show the plan and change nothing")
    .option("-y, --yes", "do not ask")
    .option(
      "--only <kinds>",
      "only agents, destinations, platforms, watchers, hooks or devices; may be given several times",
      onlyOption,
    )
    .option("--prune", "delete what is on the server and not in the file")
    .option("--exit-code", `with --dry-run: exit with ${exitCodes.changes} if there is something to do`)
    .option("--print-schema", "print the file's JSON schema, for editors")
    .action(async (_options, command: Command) => {
      const options = optionsOf<Options>(command);
      if (options.printSchema) return cli.out(jsonSchema().trimEnd());
      if (options.exitCode && !options.dryRun) {
        throw new Failure(exitCodes.usage, "--exit-code goes with --dry-run");
      }
      // Read before signals are caught: nothing but the system's own Ctrl-C ends the wait for
      // input. Problems of the file are reported before any call to a server.
      const parsed = readFile(options.file, cli.env);
      const interrupt = interruptSignal();
      try {
        await apply(cli, command, parsed, interrupt.signal);
      } finally {
        interrupt.dispose();
      }
    });
  examples(command, [
    ["apply", "./pinion.toml: shows what would change, and asks"],
    ["apply -f org.toml --dry-run --exit-code", "for a pipeline: 0 if the org is as the file says, 7 if not"],
    ["apply --only watchers --yes", "leaves agents and platforms alone"],
    ["apply --prune", "also deletes what the file does not have"],
    ["apply --print-schema > pinion.schema.json", "for completion in an editor"],
  ]);
}

function onlyOption(text: string, before: string[] | undefined): string[] {
  const unknown = list(text, undefined).find((kind) => !Object.hasOwn(kinds, kind));
  if (unknown !== undefined) throw new InvalidArgumentError(`It takes ${Object.keys(kinds).join(", ")}.`);
  return list(text, before);
}

async function apply(cli: Cli, command: Command, parsed: ParsedFile, signal: AbortSignal): Promise<void> {
  const desired = desiredOf(parsed);
  if (parsed.missing.length > 0) {
    // References missing on the server are reported together with missing variables, if the server
    // is reachable.
    const lacking = await lackingOnServer(cli, command, desired, signal);
    throw parsed.fail([...parsed.missing, ...lacking]);
  }
  const { clients, options, url } = connect<Options>(cli, command);
  const isJson = options.json === true;
  const only = new Set((options.only ?? Object.keys(kinds)).flatMap((kind) => kinds[kind] ?? []));
  const scope = { only, prune: options.prune === true, signal };

  const plan = await interruptible(signal, planFile(clients, parsed, desired, scope));
  const todo = work(plan);
  const end = (isApplied: boolean, done: readonly Step[] = [], failed: readonly Failed[] = []) => {
    const isDryRun = options.dryRun === true;
    if (isJson) cli.out(planJson(plan, { file: parsed.file, isDryRun, isApplied, done, failed }));
  };
  if (!isJson) showPlan(cli, plan, { url, file: parsed.file, showsAll: options.wide === true });
  const open = todo.length === 0 ? [] : openVariables(parsed, desired);
  if (!isJson && open.length > 0) {
    cli.note(
      `not secret: the values of variables in ${open.join(", ")} are stored as they are, and everybody who reads the org reads them`,
    );
  }
  if (!isJson && parsed.literal.length > 0) cli.note(literalNote(parsed.literal));
  if (options.dryRun) {
    if (options.exitCode && todo.length > 0) cli.setExitCode(exitCodes.changes);
    return end(false);
  }
  if (todo.length === 0) return end(true);
  if (!options.yes) await requireYes(cli, todo, isJson, signal);
  // If the process ends early because no reader takes its output, the exit code is a failure.
  cli.setExitCode(exitCodes.failed);
  const { done, failed } = await carryOut();
  cli.setExitCode(exitCodes.ok);
  if (!isJson) cli.out(`\nDone: ${countsText(done, 1)}`);
  end(failed.length === 0, done, failed);
  if (failed.length > 0) {
    throw new Failure(
      exitCodes.failed,
      `${failed.length} of ${todo.length} steps failed: ${failed.map(({ step }) => `${step.kind} ${step.id}`).join(", ")}`,
      "the rest stays as it is written; run it again when this is mended, and it goes on from there",
    );
  }

  async function carryOut(): ReturnType<typeof applyPlan> {
    const quiet = { onDone: () => {}, onFailed: () => {}, onReplan: () => {} };
    using view = isJson ? undefined : new ProgressView(cli, todo.length);
    const progress = view ?? quiet;
    return await interruptible(signal, applyPlan(clients, parsed, desired, plan, { ...scope, progress }));
  }
}

/** Places in the file where a variable's value is not stored as a secret. */
function openVariables({ templates }: ParsedFile, { platforms, destinations, hooks }: Desired): string[] {
  const secret = new Set([
    ...hooks.map(({ path }) => placeKey([...path, "secret"])),
    ...destinations.flatMap(({ path, fields }) =>
      Object.keys(fields.secrets).map((key) => placeKey([...path, key])),
    ),
    ...platforms.flatMap(({ path, secrets }) =>
      Object.keys(secrets).map((key) => placeKey([...path, "config", key])),
    ),
  ]);
  return [...templates.keys()]
    .filter((place) => !secret.has(place))
    .map((place) => pathText(JSON.parse(place) as KeyPath));
}

/** Note about references left unchanged, in case a person expected a replacement. */
function literalNote(literal: ParsedFile["literal"]): string {
  const places = new Set(literal.map(({ path, reference }) => `${reference} in ${pathText(path)}`));
  return (
    `kept as it stands: ${[...places].join(", ")}; a variable is replaced only where it is the whole value, ` +
    "and $$ is a dollar sign"
  );
}

/** The platforms' references missing on the server; none if the server is not reachable. */
async function lackingOnServer(
  cli: Cli,
  command: Command,
  desired: Desired,
  signal: AbortSignal,
): Promise<Problem[]> {
  const refers = ({ secrets }: Desired["platforms"][number]) => Object.values(secrets).some(isReference);
  const platforms = desired.platforms.filter(refers);
  if (platforms.length === 0) return [];
  try {
    const { clients } = connect<Options>(cli, command);
    const only = new Set<Kind>(["platform"]);
    const state = await readState(clients, { signal });
    const { problems } = await verify(
      clients,
      { agents: [], platforms, watchers: [], destinations: [], hooks: [], devices: [] },
      state,
      {
        only,
        signal,
      },
    );
    return problems;
  } catch (error) {
    if (signal.aborted) throw error;
    // Without a token or server only the missing variables are reported.
    return [];
  }
}

function showPlan(cli: Cli, plan: Plan, about: { url: string; file: string; showsAll: boolean }): void {
  cli.out(`${cli.colors.bold(about.file)} → ${about.url}\n`);
  for (const line of planLines(cli, plan, about.showsAll)) cli.out(line);
}

async function requireYes(cli: Cli, todo: Step[], isJson: boolean, signal: AbortSignal): Promise<void> {
  if (isJson || !canConfirm(cli.isTerminal)) {
    throw new Failure(
      exitCodes.usage,
      "there is nobody to ask, and nothing was changed",
      "--yes does it without asking, --dry-run only shows the plan",
    );
  }
  const deletions = todo.filter(({ action }) => action === "delete").length;
  const question = deletions > 0 ? `\nDo this, with ${deletions} deleted for good?` : "\nDo this?";
  if (!(await interruptible(signal, confirm(question, { signal })))) {
    throw new Failure(exitCodes.interrupted, "nothing was changed");
  }
}

/** Replaces the error of an interrupted wait by a message about the interruption. */
async function interruptible<T>(signal: AbortSignal, waiting: Promise<T>): Promise<T> {
  try {
    return await waiting;
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new Failure(
      exitCodes.interrupted,
      "interrupted",
      "what was written stays; run it again, and it goes on from there",
    );
  }
}
