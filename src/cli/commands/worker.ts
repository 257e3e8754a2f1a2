import { homedir } from "node:os";
import { type DaemonEvent, type DeviceConfig, loadLastingConfig, runDaemon } from "@pinion/client";
import type { Command } from "commander";
import { build } from "../../build.ts";
import { createLogger } from "../../telemetry/log.ts";
import { tokenKind } from "../../values/ids.ts";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { type GlobalOptions, optionsOf, proxyOption, readLine, serverUrl } from "../context.ts";
import { writeDeviceConfigOnce } from "../device/config.ts";
import { jsonLine, onHangup } from "../device/daemon.ts";
import { eventLine } from "../device/lines.ts";
import { ownConfigFile, ownWorkerStateDir } from "../device/state-dir.ts";
import { exitCodes, Failure } from "../failures.ts";
import { wholeNumber } from "../print/paging.ts";
import { parseWait } from "../print/times.ts";
import { surviveAsDaemon } from "../uncaught.ts";

type WorkerOptions = GlobalOptions & {
  tokenFile?: string;
  stateDir?: string;
  config?: string;
  label?: string;
  maxConcurrency?: number;
  stopGrace: string;
  flush: string;
  backoffMax?: string;
};

const tokenAdvice =
  "`pinion tokens create fleet --service --scope fleet:run` makes one; give it in a file with --token-file, or in PINION_TOKEN";

/**
 * `pinion worker`: this process as a fleet worker, with the daemon and the configuration of a
 * device.
 */
export function addWorker(program: Command, cli: Cli): void {
  const command = program
    .command("worker")
    .description(
      "run a fleet worker until Ctrl-C: it takes the org's runs that are pinned to no device, with a service's token",
    )
    .option("--token-file <file>", "holds the service's token, of scope fleet:run (PINION_TOKEN)")
    .option(
      "--state-dir <dir>",
      "where its installation's id and its outbox are kept, one for each worker (PINION_STATE_DIR; ~/.local/state/pinion/worker)",
    )
    .option(
      "--config <file>",
      "what it may execute, written as a device's; default: ~/.config/pinion/device.toml, which the first start writes",
    )
    .option("--label <label>", "shown to people; default: the configuration's, else made from its id")
    .option(
      "--max-concurrency <n>",
      "runs at once, 1 to 64; default: the configuration's",
      wholeNumber(1, 64),
    )
    .option("--backoff-max <length>", "longest pause before it dials again; default: 30s")
    .option("--stop-grace <length>", "how long running programs have to end at a stop", "10s")
    .option(
      "--flush <length>",
      "how long results may take to be acknowledged at a stop; the rest waits",
      "5s",
    )
    .action(async (_options, command: Command) => {
      await run(cli, optionsOf<WorkerOptions>(command));
    });
  examples(command, [
    ["worker --token-file ./fleet.token", "takes what is pinned to nobody"],
    ["worker --state-dir ./worker-2 --label worker-2 --max-concurrency 8", "a second one on this machine"],
    ["worker --json", "what happens as lines of JSON"],
  ]);
}

async function run(cli: Cli, options: WorkerOptions): Promise<void> {
  const url = serverUrl(options, cli.env);
  const token = workerToken(options, cli);
  const stateDir = options.stateDir ?? ownWorkerStateDir(cli.env);
  const configFile = options.config ?? ownConfigFile(cli.env);
  // A missing file named by an option is an error; the default file is created.
  if (!options.config && writeDeviceConfigOnce(configFile, { env: cli.env, workingDir: homedir() })) {
    cli.note(`wrote ${configFile}: it says what this worker may execute`);
  }
  const { config, problem } = loadLastingConfig(configFile, stateDir);
  if (problem !== undefined) {
    cli.note(`the configuration is wrong; the last good one is in force until it is mended:\n${problem}`);
  }
  const adjustConfig = (read: DeviceConfig): DeviceConfig => ({
    ...read,
    label: options.label ?? read.label,
    maxConcurrency: options.maxConcurrency ?? read.maxConcurrency,
  });
  const asJson = options.json === true;
  // SIGHUP: the configuration is read again.
  const interrupt = interruptSignal({ except: "SIGHUP" });
  cli.outliveOutput();
  using _survival = surviveAsDaemon(cli);
  try {
    if (!asJson) cli.note(`the fleet worker of ${stateDir} dials ${url}; Ctrl-C stops it`);
    await runDaemon({
      url,
      ...proxyOption(options),
      token,
      stateDir,
      config: adjustConfig(config),
      configFile,
      ...(problem === undefined ? {} : { configProblem: problem }),
      adjustConfig,
      onReload: onHangup,
      signal: interrupt.signal,
      logger: createLogger({
        level: cli.env.PINION_LOG_LEVEL || (asJson ? "warn" : "silent"),
        name: "pinion worker",
      }),
      onEvent(event: DaemonEvent) {
        const line = asJson ? jsonLine(event) : eventLine(cli, event);
        if (line !== undefined) cli.out(line);
      },
      appVersion: build.version,
      ...(options.backoffMax
        ? { timing: { backoffCapMs: parseWait(options.backoffMax, "--backoff-max") } }
        : {}),
      stopGraceMs: parseWait(options.stopGrace, "--stop-grace"),
      flushMs: parseWait(options.flush, "--flush"),
    });
  } finally {
    interrupt.dispose();
  }
}

/** Never the owner's token used by other commands: a worker needs its own. */
function workerToken(options: WorkerOptions, cli: Cli): string {
  const { tokenFile } = options;
  const token = tokenFile ? readLine(tokenFile) : options.token || cli.env.PINION_TOKEN;
  const from = tokenFile ?? (options.token ? "--token" : "PINION_TOKEN");
  if (!token) {
    throw new Failure(
      exitCodes.unauthenticated,
      tokenFile ? `there is no token in ${tokenFile}` : "a fleet worker needs a service's token",
      tokenAdvice,
    );
  }
  if (tokenKind(token) !== "svc") {
    throw new Failure(
      exitCodes.unauthenticated,
      `the token of ${from} is not a service's (pin_svc_…)`,
      tokenAdvice,
    );
  }
  return token;
}
