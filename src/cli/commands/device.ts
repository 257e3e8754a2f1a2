import { existsSync } from "node:fs";
import { homedir, hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import {
  type DaemonControl,
  type DaemonEvent,
  enroll,
  forgetIdentity,
  type Identity,
  installedAgents,
  isUnauthenticated,
  type LoadedConfig,
  loadConfig,
  loadLastingConfig,
  type ProxySetting,
  runDaemon,
} from "@pinion/client";
import type { Command } from "commander";
import pc from "picocolors";
import { build } from "../../build.ts";
import { logFormat, tracingConfig } from "../../config.ts";
import { createLogger } from "../../log.ts";
import { version } from "../../version.ts";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { type GlobalOptions, optionsOf, proxyOption, serverUrl } from "../context.ts";
import { writeWhole } from "../data-files.ts";
import { writeDeviceConfigOnce } from "../device/config.ts";
import { addConformance } from "../device/conformance-command.ts";
import { daemonArguments } from "../device/daemon-arguments.ts";
import { deviceUrl, requireIdentity } from "../device/enrolled.ts";
import { addInstall } from "../device/install.ts";
import { eventLine, eventRecord } from "../device/lines.ts";
import { LogRing } from "../device/log-ring.ts";
import { daemonPid, ownConfigFile, ownStateDir } from "../device/state-dir.ts";
import { deviceToken } from "../device/token.ts";
import { openDeviceTraces } from "../device/traces.ts";
import { addUpgrade } from "../device/upgrade/command.ts";
import { endTrialWhenIdle, tryProgram } from "../device/upgrade/trial.ts";
import { lastUpgrade, Upgrader, whyUnavailable } from "../device/upgrade/upgrader.ts";
import { exitCodes, Failure } from "../failures.ts";
import { parseLength } from "../print/times.ts";
import { surviveAsDaemon } from "../uncaught.ts";

type DeviceOptions = GlobalOptions & {
  stateDir?: string;
  config?: string;
  joinCode?: string;
  label?: string;
  tokenFile?: string;
  anew?: boolean;
  stopGrace?: string;
  flush?: string;
  backoffMax?: string;
};

/** `pinion device …`: this machine as a device. */
export function addDevice(program: Command, cli: Cli): void {
  const device = program
    .command("device")
    .description("this machine as a device: enrol it, run its daemon, install it as a service");
  addEnroll(device, cli);
  addRun(device, cli);
  addUpgrade(device, cli);
  addConformance(device, cli);
  addInstall(device, cli);
}

function addEnroll(device: Command, cli: Cli): void {
  const command = device
    .command("enroll")
    .description("make this machine a device, with a code of `pinion devices join-code`")
    .requiredOption("--join-code <code>", "good once")
    .option("--label <label>", "shown to people; default: this machine's name")
    .option(
      "--state-dir <dir>",
      "where the identity and the outbox are kept (PINION_STATE_DIR; ~/.local/state/pinion/device)",
    )
    .option("--config <file>", "whose `proxy` is used; default: ~/.config/pinion/device.toml")
    .option("--anew", "as a device of its own, although the state is a copy of another machine's")
    .option("--token-file <file>", "write the token there, not beside the identity; - is standard output")
    .action(async (_options, command: Command) => {
      const options = optionsOf<DeviceOptions>(command);
      const url = serverUrl(options, cli.env);
      const stateDir = options.stateDir ?? ownStateDir(cli.env);
      if (options.anew) await forgetCopied(stateDir);
      const identity = await enroll({
        url,
        ...proxyOption(options),
        ...(options.proxy === undefined ? configuredProxy(options.config ?? ownConfigFile(cli.env)) : {}),
        joinCode: options.joinCode ?? "",
        label: options.label ?? hostname(),
        stateDir,
        ...(options.tokenFile === undefined
          ? {}
          : { keepToken: (token) => keepToken(cli, options.tokenFile!, token) }),
      }).catch((error) => {
        if (!isUnauthenticated(error)) throw error;
        throw new Failure(
          exitCodes.unauthenticated,
          error.rawMessage,
          "`pinion devices join-code` makes a new one",
        );
      });
      if (options.json) {
        return cli.out(
          JSON.stringify({ device_id: identity.deviceId, org_id: identity.orgId, state_dir: stateDir }),
        );
      }
      const configFile = options.config ?? ownConfigFile(cli.env);
      const isNew = writeDeviceConfigOnce(configFile, { env: cli.env, workingDir: homedir() });
      const agents = isNew ? installedAgents(cli.env).map(({ kind }) => kind) : [];
      cli.out(`this machine is device ${identity.deviceId}`);
      if (identity.sameLabelCount > 0) {
        const count = identity.sameLabelCount;
        cli.note(
          `${cli.colors.yellow("!")} ${count === 1 ? "another device is" : `${count} other devices are`} called "${options.label ?? hostname()}" too; \`pinion devices rename ${identity.deviceId} NAME\` gives this one another name`,
        );
      }
      cli.out(mayRun(configFile));
      if (isNew) {
        const found = agents.length === 0 ? "no agents were found" : `agents found: ${agents.join(", ")}`;
        cli.note(`wrote ${configFile}: it says what this device may execute (${found})`);
      }
      cli.note(`its identity is in ${stateDir}; \`pinion device run\` starts its daemon`);
    });
  examples(command, [["device enroll --url https://pinion.example.org --join-code ABCD-EFGH-JKMN-PQRS", ""]]);
}

/** The executors of the configuration as text for people, or the problem of the file. */
function mayRun(configFile: string): string {
  try {
    const { executors, defaultExecutor } = loadConfig(configFile);
    const kinds = Object.keys(executors).map((kind) =>
      kind === defaultExecutor ? `${kind} (default)` : kind,
    );
    return `it may run: ${kinds.join(", ")}`;
  } catch (error) {
    return `what it may run is not known: ${(error as Error).message}`;
  }
}

function addRun(device: Command, cli: Cli): void {
  const command = device
    .command("run")
    .description(
      "run the daemon until Ctrl-C: it holds the stream, starts what its configuration allows, reports back",
    )
    .option(
      "--state-dir <dir>",
      "where the identity and the outbox are kept (PINION_STATE_DIR; ~/.local/state/pinion/device)",
    )
    .option(
      "--config <file>",
      "what it may execute; default: ~/.config/pinion/device.toml, which the first start writes",
    )
    .option(
      "--backoff-max <length>",
      "longest pause before it dials again; default: 30s or what the client has",
    )
    .option("--stop-grace <length>", "how long running programs have to end at a stop", "10s")
    .option(
      "--flush <length>",
      "how long results may take to be acknowledged at a stop; the rest waits",
      "5s",
    )
    .action(async (_options, command: Command) => {
      const options = optionsOf<DeviceOptions>(command);
      await run(cli, options);
    });
  examples(command, [
    ["device run", "a line for everything that happens"],
    ["device run --config ./device.toml --json", "the same as lines of JSON"],
  ]);
}

/** A daemon about to start: its places, its identity and its configuration. */
interface Start {
  cli: Cli;
  options: DeviceOptions;
  asJson: boolean;
  stateDir: string;
  identity: Identity;
  url: string;
  configFile: string;
  loaded: LoadedConfig;
}

async function startOf(cli: Cli, options: DeviceOptions): Promise<Start> {
  const stateDir = options.stateDir ?? ownStateDir(cli.env);
  const identity = await requireIdentity(stateDir);
  const url = deviceUrl(identity, options, cli);
  const configFile = options.config ?? ownConfigFile(cli.env);
  // A missing file named by an option is an error; the default file is created.
  if (!options.config && writeDeviceConfigOnce(configFile, { env: cli.env, workingDir: homedir() })) {
    cli.note(`wrote ${configFile}: it says what this device may execute`);
  }
  const loaded = loadLastingConfig(configFile, stateDir);
  if (loaded.problem !== undefined) {
    cli.note(
      `the configuration is wrong; the last good one is in force until it is mended:\n${loaded.problem}`,
    );
  }
  return { cli, options, asJson: options.json === true, stateDir, identity, url, configFile, loaded };
}

async function run(cli: Cli, options: DeviceOptions): Promise<void> {
  const start = await startOf(cli, options);
  const { asJson, stateDir, identity, url } = start;
  const interrupt = interruptSignal();
  const log = createLogger({
    level: cli.env.PINION_LOG_LEVEL || (asJson ? "warn" : "silent"),
    name: "pinion device",
    format: logFormat(cli.env),
  });
  const tracing = tracingConfig(cli.env);
  const traces = tracing && (await openDeviceTraces(tracing, { deviceId: identity.deviceId, log }));
  const stopping = new AbortController();
  const upgrader = await upgraderOf(start, { signal: interrupt.signal, stop: () => stopping.abort() });
  const endRequests = onSignal("SIGUSR2", () => void upgrader.requested());
  const ring = new LogRing([identity.token, cli.env.PINION_TOKEN ?? "", options.token ?? ""]);
  const onEvent = (event: DaemonEvent): void => {
    traces?.note(event);
    if (event.type === "connected") upgrader.offered(event.daemonVersion);
    remember(ring, cli, event);
    const line = asJson ? jsonLine(event) : eventLine(cli, event);
    if (line !== undefined) cli.out(line);
  };
  const { tokenCommand } = start.loaded.config;
  const { token } = await deviceToken({ identity, tokenCommand, env: cli.env });
  let startsAgain = false;
  const begin = (control: DaemonControl) => {
    upgrader.begin(control);
    void endTrialWhenIdle({
      ...{ stateDir, signal: interrupt.signal, ...control },
      end() {
        startsAgain = true;
        stopping.abort();
      },
    });
  };
  using _survival = surviveAsDaemon(cli);
  try {
    if (!asJson) cli.note(`device ${identity.deviceId} dials ${url}; Ctrl-C stops it`);
    await runDaemon({
      ...daemonOptionsOf(start),
      token,
      signal: AbortSignal.any([interrupt.signal, stopping.signal]),
      logger: log,
      onEvent,
      logExcerpt: (linesMax) => ring.excerpt(linesMax),
      upgrades: { describe: (current) => upgrader.describe(current), begin },
      ...(traces ? { traceparentOf: traces.traceparentOf } : {}),
    });
  } finally {
    await traces?.close();
    endRequests();
    interrupt.dispose();
  }
  if (startsAgain) return cli.setExitCode(exitCodes.startAgain);
  if (upgrader.ready && !interrupt.signal.aborted) await goOnWith(start, upgrader.ready);
}

/** Options of the daemon from the command line and the configuration. */
function daemonOptionsOf({ cli, options, stateDir, url, configFile, loaded }: Start) {
  const { config, problem } = loaded;
  return {
    url,
    ...proxyOption(options),
    stateDir,
    config,
    configFile,
    ...(problem === undefined ? {} : { configProblem: problem }),
    onReload: onHangup,
    hidden: hiddenOf(cli, { stateDir, configFile }),
    appVersion: version(),
    ...(options.backoffMax
      ? { timing: { backoffCapMs: parseLength(options.backoffMax, "--backoff-max") } }
      : {}),
    stopGraceMs: parseLength(options.stopGrace ?? "10s", "--stop-grace"),
    flushMs: parseLength(options.flush ?? "5s", "--flush"),
  };
}

async function upgraderOf(
  start: Start,
  { signal, stop }: { signal: AbortSignal; stop: () => void },
): Promise<Upgrader> {
  const { cli, options, stateDir, url } = start;
  const { proxy } = start.loaded.config;
  const chosen = options.proxy !== undefined ? proxyOption(options) : proxy === undefined ? {} : { proxy };
  return new Upgrader(
    {
      ...{ url, env: cli.env, stateDir, stop },
      tell: (message) => tellUpgrade(start, message),
      source: () => ({ url, ...chosen, signal }),
      unavailable: whyUnavailable({ isOfUp: upDirectory(stateDir) !== undefined }),
    },
    await lastUpgrade(stateDir),
  );
}

function tellUpgrade({ cli, asJson }: Start, message: string): void {
  if (asJson) cli.out(JSON.stringify({ type: "upgrade", at: new Date().toISOString(), message }));
  else cli.note(message);
}

/** Gives this process's place to the program that an upgrade brought. */
async function goOnWith(start: Start, program: NonNullable<Upgrader["ready"]>): Promise<void> {
  const { cli, stateDir } = start;
  const args = daemonWords(process.argv.slice(2));
  const tell = (message: string) => tellUpgrade(start, message);
  cli.setExitCode(await tryProgram({ ...program, args, env: cli.env, stateDir, tell }));
}

/** A daemon running with the state would go on with the old identity. */
async function forgetCopied(stateDir: string): Promise<void> {
  const pid = await daemonPid(stateDir);
  if (pid === undefined) return forgetIdentity(stateDir);
  throw new Failure(
    exitCodes.conflict,
    `a daemon (process ${pid}) runs with ${stateDir}`,
    "stop it first, or give --state-dir another directory",
  );
}

/** Calls `reload` at each SIGHUP; returns a function for removing the handler. */
export function onHangup(reload: () => void): () => void {
  return onSignal("SIGHUP", reload);
}

function onSignal(signal: NodeJS.Signals, handle: () => void): () => void {
  process.on(signal, handle);
  return () => process.off(signal, handle);
}

/** Output and activity are left out: the log is about the daemon, and leaves the machine. */
function remember(ring: LogRing, cli: Cli, event: DaemonEvent): void {
  if (event.type === "output" || event.type === "activity") return;
  const line = eventLine({ ...cli, colors: pc.createColors(false) }, event);
  // Without the time of day, which the ring writes with the date.
  if (line !== undefined) ring.push(event.atMs, line.replace(/^\S+\s+/, ""));
}

/** The arguments of this daemon for a program that replaces it; `piniond` alone means `run`. */
function daemonWords(args: readonly string[]): string[] {
  return build.program === "piniond" ? daemonArguments(args) : [...args];
}

function keepToken(cli: Cli, file: string, token: string): void {
  if (file === "-") cli.out(token);
  else writeWhole(file, `${token}\n`, 0o600);
}

/**
 * Paths hidden from programs with `isolate = true`, besides the state: the configuration, this
 * user's tokens, and the data of `pinion up` if the daemon belongs to `up`.
 */
function hiddenOf(cli: Cli, places: { stateDir: string; configFile: string }): string[] {
  const up = upDirectory(places.stateDir);
  return [resolve(places.configFile), dirname(ownConfigFile(cli.env)), ...(up === undefined ? [] : [up])];
}

/** The data directory of `pinion up`, if the state belongs to its daemon. */
function upDirectory(stateDir: string): string | undefined {
  const directory = dirname(resolve(stateDir));
  return existsSync(join(directory, "secret-keys")) ? directory : undefined;
}

/** The configuration's `proxy`, if set. */
export function configuredProxy(configFile: string): { proxy?: ProxySetting } {
  if (!existsSync(configFile)) return {};
  const { proxy } = loadConfig(configFile);
  return proxy === undefined ? {} : { proxy };
}

/** Output events are not logged: the server relays the output, which may be large. */
export function jsonLine(event: DaemonEvent): string | undefined {
  return event.type === "output" || event.type === "activity"
    ? undefined
    : JSON.stringify(eventRecord(event));
}
