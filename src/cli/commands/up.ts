import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import type { DeviceConfig } from "@pinion/client";
import type { Command } from "commander";
import { build } from "../../build.ts";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { dataDir, defaultPort, optionsOf } from "../context.ts";
import { reportKind } from "../device/config.ts";
import { callName } from "../device/self.ts";
import { upStateDir } from "../device/state-dir.ts";
import { exitCodes, explain, Failure } from "../failures.ts";
import { wholeNumber } from "../print/paging.ts";
import { plain } from "../print/table.ts";
import { parseWait } from "../print/times.ts";
import { stopGraceMs } from "../up/daemon-process.ts";
import { type FirstRun, firstWatcher, runFirst } from "../up/first-run.ts";
import { LaterRuns } from "../up/later-runs.ts";
import { type Machine, startMachine, type UpOptions } from "../up/machine.ts";
import { UpView } from "../up/view.ts";

/** Maximum time of a stop in ms; after the limit Ctrl-C ends `up` in any case. */
const stopMsMax = 24_000;

/** `pinion up`: everything on this machine, and a first run. Used by `npm start`. */
export function addUp(program: Command, cli: Cli): void {
  const command = program
    .command("up")
    .description("start everything on this machine: database, server, this device, and a first run")
    .option(
      "--port <n>",
      `port to listen on (PINION_PORT; ${defaultPort}); 0 lets the system choose`,
      wholeNumber(0, 65_535),
    )
    .option("--host <address>", "address to listen on (PINION_HOST; 127.0.0.1)")
    .option("--database-url <url>", "a PostgreSQL ≥ 15 of your own (DATABASE_URL) instead of an embedded one")
    .option("--once", "stop after the first run; exits with 1 unless its result is stored")
    .option("--within <length>", "with --once: how long the first run may take to be stored", "5m")
    .option("--no-run", "start everything, but no run (`npm start -- --no-run`)")
    .action(async (_options, command: Command) => {
      const options = optionsOf<UpOptions>(command);
      const isForScript = options.once === true && options.json === true;
      await up(cli, options).catch((error) => {
        if (isForScript && !(error instanceof FirstRunFailure)) cli.out(errorLine(error));
        throw error;
      });
    });
  examples(command, [
    ["up", "until Ctrl-C; state in ./.pinion"],
    ["up --once --json", "for a script: the last line of standard output is one JSON object"],
    ["up --port 8080 --data /var/lib/pinion", "elsewhere"],
  ]);
}

/** The first run did not complete; its JSON is printed already. */
class FirstRunFailure extends Failure {}

/** The last line of `up --once --json` without a run. */
export function errorLine(error: unknown): string {
  const { message, advice } = explain(error, undefined);
  return JSON.stringify({ status: "error", error: message, advice: advice ?? "" });
}

async function up(cli: Cli, options: UpOptions): Promise<void> {
  // A mistake on the command line is told before anything is started.
  const withinMs = options.once ? parseWait(options.within, "--within") : undefined;
  const interrupt = interruptSignal();
  cli.outliveOutput();
  const failing = new AbortController();
  const signal = AbortSignal.any([interrupt.signal, failing.signal]);
  const view = new UpView(cli, options.json === true);
  view.title(build.version);
  let runs: LaterRuns | undefined;
  {
    await using parts = new AsyncDisposableStack();
    parts.defer(() => interrupt.dispose());
    boundStop(interrupt.signal, view);
    try {
      const fail = (failure: Failure) => failing.abort(failure);
      // Read before the start, because the start enrols a new machine.
      const isRestart = existsSync(join(upStateDir(dataDir(options, cli.env)), "identity.json"));
      const machine = await startMachine(cli, options, { view, parts, signal, fail });
      runs = new LaterRuns({ ...machine, view, signal });
      const first = options.run
        ? await firstRun(machine, options, { view, signal, isRestart, withinMs })
        : undefined;
      if (options.once) return finishOnce(cli, options, first);
      view.lines(nextSteps(cli, options, machine, await signInLink(machine)));
      await serveUntilStopped(machine, runs, signal);
      failing.signal.throwIfAborted();
    } catch (error) {
      // The failure is the cause of the later error.
      failing.signal.throwIfAborted();
      if (!interrupt.signal.aborted) throw error;
      if (options.once) throw new Failure(exitCodes.interrupted, "stopped before the first run was stored");
    } finally {
      if (interrupt.signal.aborted) sayStopping(view, runs);
    }
  }
  sayStopped(view, runs);
}

function sayStopping(view: UpView, runs: LaterRuns | undefined): void {
  view.note("stopping: daemon, server, database");
  for (const { runId, watcher } of runs?.active ?? []) {
    view.note(`waiting for run ${runId} of ${watcher} to end or be stopped, up to ${stopGraceMs / 1000} s`);
  }
}

function sayStopped(view: UpView, runs: LaterRuns | undefined): void {
  for (const run of runs?.stopped ?? []) {
    view.note(`to do it again after the next start: pinion runs retry ${run}`);
  }
  view.note("stopped");
}

/** Ends a hanging stop: all important data is on disk, and the next start continues. */
function boundStop(signal: AbortSignal, view: UpView): void {
  signal.addEventListener("abort", () => {
    setTimeout(() => {
      view.note("the stop took too long and was cut off; nothing is lost, the next start recovers");
      process.exit(exitCodes.failed);
    }, stopMsMax).unref();
  });
}

type FirstRunOptions = {
  view: UpView;
  signal: AbortSignal;
  isRestart: boolean;
  withinMs: number | undefined;
};

async function firstRun(
  machine: Machine,
  options: UpOptions,
  { view, signal, isRestart, withinMs }: FirstRunOptions,
): Promise<FirstRun | undefined> {
  const { clients, deviceId, deviceLog } = machine;
  const watcher = await firstWatcher(clients, deviceId);
  view.step("watcher", `${watcher.slug}, ${watcher.spec?.schedule || "no schedule"}`, {
    watcher: watcher.slug,
  });
  const kind =
    isRestart && !options.once ? costlyKind(machine.deviceConfig, watcher.spec?.agentKind) : undefined;
  if (kind !== undefined) {
    view.note(
      `${plain(kind)} would do it and may cost money, so a restart triggers nothing: ${callName()} watchers trigger ${watcher.slug} --watch`,
    );
    return undefined;
  }
  return runFirst({ clients, watcher, deviceLog, view, signal, withinMs });
}

/** The executor kind for the watcher's run, unless it is the free report. */
function costlyKind(
  { executors, defaultExecutor }: DeviceConfig,
  wanted: string | undefined,
): string | undefined {
  const kind = (wanted && executors[wanted] ? wanted : defaultExecutor) ?? "";
  const executor = executors[kind];
  if (!executor) return undefined;
  return kind === reportKind && executor.type === "command" ? undefined : kind;
}

function finishOnce(cli: Cli, options: UpOptions, first: FirstRun | undefined): void {
  if (!first) return;
  if (options.json) cli.out(JSON.stringify(first));
  if (first.status === "completed" && first.window_id) return;
  throw new FirstRunFailure(
    exitCodes.failed,
    `the first run ended ${first.status}${first.reason ? `: ${first.reason}` : ""}`,
    `PINION_DEBUG=1 and <data>/device.log show more`,
  );
}

async function serveUntilStopped(machine: Machine, runs: LaterRuns, signal: AbortSignal): Promise<void> {
  await runs.show();
  const stopped = new Promise<"asked">((done) => {
    if (signal.aborted) done("asked");
    signal.addEventListener("abort", () => done("asked"), { once: true });
  });
  const how = await Promise.race([stopped, machine.serverClosed.then(() => "server" as const)]);
  if (how === "server")
    throw new Failure(exitCodes.failed, "the server ended", "server.log in the data directory says why");
}

/** A sign-in link; undefined if the token does not belong to a person. */
async function signInLink({ clients, url }: Machine): Promise<string | undefined> {
  try {
    const { path } = await clients.signIns.createSignInLink({});
    return `${url}${path}`;
  } catch {
    return undefined;
  }
}

function nextSteps(cli: Cli, options: UpOptions, machine: Machine, link: string | undefined): string[] {
  const { bold, dim } = cli.colors;
  const flags = options.data ? ` --data ${options.data}` : "";
  const commands: [string, string][] = [
    ["watchers list", "what is due when"],
    ["runs list", "what ran"],
    ["watchers trigger daily-checkin --watch", "another run, live"],
    [
      `watchers create hello --prompt "Say hello." --device ${JSON.stringify(machine.deviceLabel)}`,
      "a watcher of your own",
    ],
    ["doctor", "what is wrong, if anything is"],
  ];
  const width = Math.max(...commands.map(([command]) => command.length));
  return [
    "",
    `  ${bold("What next")}, in another terminal:`,
    ...commands.map(([command, why]) => `    ${callName()} ${command.padEnd(width)}${flags}  ${dim(why)}`),
    "",
    ...(link
      ? [
          `  ${bold("On the web")}: ${link}`,
          `    ${dim(`signs you in, once, within 5 minutes; ${callName()} sign-ins link${flags} prints another`)}`,
        ]
      : [
          `  ${bold("On the web")}: ${machine.url}/  ${dim(`sign in with the token in ${join(dirname(machine.configFile), "token")}`)}`,
        ]),
    "",
    `  ${dim(`what this device may execute: ${machine.configFile}`)}`,
    `  ${dim("Ctrl-C stops everything, a run under way too: `pinion runs retry` does it again. The rest goes on at the next start")}`,
    "",
  ];
}
