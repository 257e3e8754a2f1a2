import { mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import { dirname, resolve } from "node:path";
import { listKept, PROXY_ENV, readStatus } from "@pinion/client";
import type { Command } from "commander";
import { build } from "../../build.ts";
import { codeOf } from "../../errors.ts";
import { type Cli, type Environment, examples } from "../cli.ts";
import { optionsOf } from "../context.ts";
import { writeWhole } from "../data-files.ts";
import { exitCodes, Failure } from "../failures.ts";
import { formatBytes } from "../print/bytes.ts";
import { plain } from "../print/table.ts";
import { writeDeviceConfigOnce } from "./config.ts";
import { requireIdentity } from "./enrolled.ts";
import { lastingSelfCommand } from "./self.ts";
import { homeOf, type InstallOptions, logFileOf, placeOf } from "./service-place.ts";
import type { Service } from "./service-units.ts";
import { daemonPid, ownConfigFile, ownStateDir } from "./state-dir.ts";
import { readRecord, type UpgradeRecord } from "./upgrade/record.ts";

/**
 * Variables of this shell passed to a service: program paths and access to the server. Never a key
 * or a token.
 */
const handedOn = [
  ...["PATH", "LANG", "NODE_EXTRA_CA_CERTS"],
  ...["PINION_LOG_LEVEL", "PINION_OTLP_ENDPOINT", "PINION_TRACE_RATIO"],
  ...PROXY_ENV,
];

/** Others may read a service's file and environment, so a proxy's password must not be there. */
const holdsPassword = (name: string, value: string) => /_proxy$/i.test(name) && value.includes("@");
/** `pinion device install|uninstall|status`: the daemon as a service of systemd or launchd. */
export function addInstall(device: Command, cli: Cli): void {
  const common = (command: Command) =>
    command
      .option("--system", "a service of the whole machine, not of this user; needs to be root")
      .option("--manager <name>", "systemd or launchd; default: this system's")
      .option("--state-dir <dir>", "the device's state (PINION_STATE_DIR; ~/.local/state/pinion/device)");
  const install = common(device.command("install"))
    .description(
      "have the daemon start by itself: writes a systemd unit or a launchd property list and starts it",
    )
    .option("--config <file>", "what it may execute; default: ~/.config/pinion/device.toml")
    .option("--print", "print the file, and change nothing")
    .option("--no-start", "write the file, and start nothing")
    .action((_options, command: Command) => runInstall(cli, optionsOf<InstallOptions>(command)));
  examples(install, [
    ["device install", "for this user; starts at once and with every login"],
    ["device install --print", "only show the unit"],
    ["device install --system", "for the machine, as the user who called sudo"],
  ]);
  const uninstall = common(device.command("uninstall"))
    .description("stop the service and remove its file; the device stays enrolled, its results are kept")
    .action((_options, command: Command) => runUninstall(cli, optionsOf<InstallOptions>(command)));
  examples(uninstall, [["device uninstall", "`pinion device install` has it start by itself again"]]);
  const status = common(device.command("status"))
    .description("whether the service is installed and its daemon runs; exits with 1 unless both")
    .action((_options, command: Command) => runStatus(cli, optionsOf<InstallOptions>(command)));
  examples(status, [["device status --json", "for a script"]]);
}

async function runInstall(cli: Cli, options: InstallOptions): Promise<void> {
  const place = placeOf(cli, options);
  const text = place.textOf(serviceOf(cli, options));
  if (options.print) {
    for (const line of text.trimEnd().split("\n")) cli.out(line);
    return;
  }
  const stateDir = stateDirOf(cli.env, options);
  await requireIdentity(stateDir);
  const configFile = configFileOf(cli.env, options);
  if (writeDeviceConfigOnce(configFile, { env: cli.env, workingDir: homeOf(cli.env) })) {
    cli.note(`wrote ${configFile}: it says what this device may execute`);
  }
  const isChanged = readIfThere(place.file) !== text;
  if (isChanged) {
    mkdirSync(dirname(place.file), { recursive: true });
    write(place.file, text);
  }
  const started = options.start ? await place.start(isChanged) : undefined;
  if (options.json) {
    cli.out(JSON.stringify({ file: place.file, is_changed: isChanged, is_started: started === "done" }));
    return;
  }
  cli.out(isChanged ? `wrote ${place.file}` : `${place.file} is as it should be`);
  if (started === "done") cli.out("the daemon runs, and starts by itself from now on");
  else cli.note(`to start it:\n  ${place.byHand.start.join("\n  ")}`);
  if (place.manager === "systemd" && !options.system) {
    cli.note("it stops when you log out, unless you say `loginctl enable-linger`");
  }
}

async function runUninstall(cli: Cli, options: InstallOptions): Promise<void> {
  const place = placeOf(cli, options);
  const isThere = readIfThere(place.file) !== undefined;
  if (isThere) {
    await place.stop();
    rmSync(place.file, { force: true });
    await place.reload();
  }
  if (options.json) return cli.out(JSON.stringify({ file: place.file, was_installed: isThere }));
  cli.out(
    isThere ? `stopped the service and removed ${place.file}` : `not installed (nothing at ${place.file})`,
  );
}

async function runStatus(cli: Cli, options: InstallOptions): Promise<void> {
  const place = placeOf(cli, options);
  const isInstalled = readIfThere(place.file) !== undefined;
  const state = isInstalled ? await place.state() : "";
  const stateDir = stateDirOf(cli.env, options);
  const pid = await daemonPid(stateDir);
  const found = pid === undefined ? undefined : await readStatus(stateDir);
  const status = found?.pid === pid ? found : undefined;
  const upgrade = await readRecord(stateDir);
  const kept = await listKept(stateDir);
  const keptBytes = kept.reduce((sum, { bytes }) => sum + bytes, 0);
  if (options.json) {
    cli.out(
      JSON.stringify({
        ...{ file: place.file, is_installed: isInstalled, state, pid: pid ?? null },
        ...{ connection: status?.connection ?? "", connection_reason: status?.reason ?? "" },
        upgrade: upgrade
          ? {
              state: upgrade.state,
              from: upgrade.from,
              to: upgrade.to,
              at: upgrade.at,
              problem: upgrade.problem,
            }
          : null,
        ...{ version: build.version },
        ...{ kept_results: kept.length, kept_bytes: keptBytes },
        ...{ config_file: status?.configFile ?? "", config_problem: status?.configProblem ?? "" },
      }),
    );
  } else {
    cli.out(
      isInstalled
        ? `installed: ${place.file}${state && ` (${state})`}`
        : `not installed (nothing at ${place.file})`,
    );
    cli.out(pid === undefined ? "the daemon does not run" : `the daemon runs (process ${pid})`);
    if (status?.connection === "serving") cli.out("it is connected");
    else if (status) cli.out(`it is not connected: ${plain(status.reason || status.connection)}`);
    if (upgrade) cli.out(upgradeWords(upgrade));
    if (kept.length > 0) {
      const oldest = Math.min(...kept.map(({ acknowledgedAtMs }) => acknowledgedAtMs));
      cli.out(
        `kept for a database that fails over: ${kept.length} acknowledged results, ${formatBytes(keptBytes)}, the oldest from ${new Date(oldest).toISOString()}`,
      );
    }
    if (status?.configProblem) {
      cli.out(`${status.configFile} is wrong, and the configuration before it is in force:`);
      for (const line of status.configProblem.split("\n")) cli.out(`  ${plain(line)}`);
    }
    if (!isInstalled) cli.note("`pinion device install` installs it");
    else if (pid === undefined) cli.note(`what it says:\n  ${place.byHand.log}`);
  }
  if (!isInstalled || pid === undefined) cli.setExitCode(exitCodes.failed);
}

function upgradeWords({ state, from, to, at, running, problem }: UpgradeRecord): string {
  const when = `${at.slice(0, 16).replace("T", " ")} UTC`;
  switch (state) {
    case "preparing":
      return `an upgrade is under way: fetching ${plain(to)}`;
    case "waiting":
      return `an upgrade to ${plain(to)} waits for ${running} running program${running === 1 ? "" : "s"}`;
    case "trying":
      return `an upgrade is under way: ${plain(to)} is on trial`;
    case "kept":
      return `upgraded from ${plain(from)} to ${plain(to)} at ${when}`;
    case "rolled_back":
      return `the upgrade to ${plain(to)} was undone at ${when}: ${plain(problem)}`;
    case "failed":
      return `the last upgrade did not begin (${when}): ${plain(problem)}`;
  }
}

/** A daemon of another user than the files' owner finds no files. */
function requireOwnHome(env: Environment): void {
  if (!env.SUDO_UID) return;
  const home = homeOf(env);
  if (statSync(home, { throwIfNoEntry: false })?.uid === Number(env.SUDO_UID)) return;
  throw new Failure(
    exitCodes.usage,
    `HOME is ${home}, which is not ${env.SUDO_USER}'s`,
    "keep your own: sudo --preserve-env=HOME,PATH pinion device install --system",
  );
}

function serviceOf(cli: Cli, options: InstallOptions): Service {
  if (options.system) requireOwnHome(cli.env);
  const stateDir = resolve(stateDirOf(cli.env, options));
  const environment: Record<string, string> = {};
  for (const name of handedOn) {
    const value = cli.env[name];
    if (!value) continue;
    if (holdsPassword(name, value)) {
      cli.note(
        `${name} holds a password and is not written into the service's file; write it as \`proxy\` into ${configFileOf(cli.env, options)}, which only you read`,
      );
    } else environment[name] = value;
  }
  if (options.proxy?.includes("@")) {
    throw new Failure(
      exitCodes.usage,
      "--proxy holds a password, and a service's file may be read by others",
      `write it as \`proxy = "…"\` under [device] in ${configFileOf(cli.env, options)}, which only you read`,
    );
  }
  return {
    command: [
      ...lastingSelfCommand(),
      ...["device", "run"],
      ...["--state-dir", stateDir, "--config", resolve(configFileOf(cli.env, options)), "--json"],
      ...(options.proxy === undefined ? [] : ["--proxy", options.proxy]),
    ],
    environment,
    workingDir: homeOf(cli.env),
    // With sudo, the daemon belongs to the calling person, like the agents and their files.
    user: options.system ? cli.env.SUDO_USER || userInfo().username : undefined,
    logFile: logFileOf(cli.env, options.system),
  };
}

function stateDirOf(env: Environment, options: InstallOptions): string {
  return options.stateDir ?? ownStateDir(env);
}

function configFileOf(env: Environment, options: InstallOptions): string {
  return options.config ?? ownConfigFile(env);
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

function write(file: string, text: string): void {
  try {
    writeWhole(file, text, 0o644);
  } catch (error) {
    const code = codeOf(error) ?? "";
    throw new Failure(
      exitCodes.failed,
      `${file} cannot be written (${code})`,
      "with --system, be root: sudo --preserve-env=HOME,PATH pinion …",
    );
  }
}
