import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import {
  type DaemonControl,
  type DaemonEvent,
  type Identity,
  type LoadedConfig,
  loadLastingConfig,
  runDaemon,
} from "@pinion/client";
import pc from "picocolors";
import { build } from "../../build.ts";
import { logFormat, tracingConfig } from "../../config.ts";
import { createLogger } from "../../telemetry/log.ts";
import { type Cli, interruptSignal } from "../cli.ts";
import { type GlobalOptions, proxyOption } from "../context.ts";
import { exitCodes } from "../failures.ts";
import { parseWait } from "../print/times.ts";
import { surviveAsDaemon } from "../uncaught.ts";
import { writeDeviceConfigOnce } from "./config.ts";
import { daemonArguments } from "./daemon-arguments.ts";
import { deviceUrl, requireIdentity } from "./enrolled.ts";
import { eventLine, eventRecord } from "./lines.ts";
import { LogRing } from "./log-ring.ts";
import { ownConfigFile, ownStateDir } from "./state-dir.ts";
import { deviceToken } from "./token.ts";
import { openDeviceTraces } from "./traces.ts";
import { endTrialWhenIdle, tryProgram } from "./upgrade/trial.ts";
import { lastUpgrade, Upgrader, whyUnavailable } from "./upgrade/upgrader.ts";

/** Options of `pinion device run` and `enroll`. */
export type DeviceOptions = GlobalOptions & {
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

/** Runs the daemon of this device until a stop or an upgrade. */
export async function runDeviceDaemon(cli: Cli, options: DeviceOptions): Promise<void> {
  const start = await startOf(cli, options);
  const { asJson, stateDir, identity, url } = start;
  // SIGHUP: the configuration is read again.
  const interrupt = interruptSignal({ except: "SIGHUP" });
  cli.outliveOutput();
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
    appVersion: build.version,
    ...(options.backoffMax
      ? { timing: { backoffCapMs: parseWait(options.backoffMax, "--backoff-max") } }
      : {}),
    stopGraceMs: parseWait(options.stopGrace ?? "10s", "--stop-grace"),
    flushMs: parseWait(options.flush ?? "5s", "--flush"),
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

/** Gives this process's place to the fetched program of an upgrade. */
async function goOnWith(start: Start, program: NonNullable<Upgrader["ready"]>): Promise<void> {
  const { cli, stateDir } = start;
  const args = daemonWords(process.argv.slice(2));
  const tell = (message: string) => tellUpgrade(start, message);
  cli.setExitCode(await tryProgram({ ...program, args, env: cli.env, stateDir, tell }));
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

/** This daemon's arguments, for its successor; `piniond` alone means `run`. */
function daemonWords(args: readonly string[]): string[] {
  return build.program === "piniond" ? daemonArguments(args) : [...args];
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

/** Output events are not logged: the server relays the output, and the output may be large. */
export function jsonLine(event: DaemonEvent): string | undefined {
  return event.type === "output" || event.type === "activity"
    ? undefined
    : JSON.stringify(eventRecord(event));
}
