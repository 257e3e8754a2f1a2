import { execFile } from "node:child_process";
import { homedir, userInfo } from "node:os";
import { join } from "node:path";
import type { Cli, Environment } from "../cli.ts";
import type { GlobalOptions } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { findProgram } from "./find-program.ts";
import { launchdLabel, launchdPlist, type Service, systemdName, systemdUnit } from "./service-units.ts";

export type InstallOptions = GlobalOptions & {
  stateDir?: string;
  config?: string;
  system?: boolean;
  print?: boolean;
  start: boolean;
  manager?: string;
};

type Manager = "systemd" | "launchd";

/** A service manager and its file for the daemon. */
export type Place = {
  manager: Manager;
  file: string;
  textOf(service: Service): string;
  /** Undefined if the manager's command is missing; `byHand` then gives the commands. */
  start(isChanged: boolean): Promise<"done" | undefined>;
  stop(): Promise<void>;
  reload(): Promise<void>;
  /** State in the manager's words; empty if unknown. */
  state(): Promise<string>;
  byHand: { start: string[]; log: string };
};

/** The place for the options, or by the system. Throws a Failure without a service manager. */
export function placeOf(cli: Cli, options: InstallOptions): Place {
  const manager = managerOf(options);
  return manager === "systemd" ? systemdPlace(cli, options) : launchdPlace(cli, options);
}

function managerOf({ manager }: InstallOptions): Manager {
  if (manager === "systemd" || manager === "launchd") return manager;
  if (manager !== undefined) {
    throw new Failure(exitCodes.usage, `"${manager}" is no service manager`, "it is systemd or launchd");
  }
  if (process.platform === "darwin") return "launchd";
  if (process.platform === "linux") return "systemd";
  throw new Failure(
    exitCodes.failed,
    `there is no service for ${process.platform} yet`,
    "start `pinion device run` by what starts programs there",
  );
}

function systemdPlace(cli: Cli, { system }: InstallOptions): Place {
  const scope = system ? [] : ["--user"];
  const configHome = cli.env.XDG_CONFIG_HOME || join(homeOf(cli.env), ".config");
  const directory = system ? "/etc/systemd/system" : join(configHome, "systemd", "user");
  const systemctl = (...args: string[]) => manage(cli, "systemctl", [...scope, ...args]);
  const shown = (...args: string[]) => ["systemctl", ...scope, ...args].join(" ");
  return {
    manager: "systemd",
    file: join(directory, systemdName),
    textOf: systemdUnit,
    async start(isChanged) {
      if ((await systemctl("daemon-reload")) === undefined) return undefined;
      await systemctl("enable", systemdName);
      await systemctl(isChanged ? "restart" : "start", systemdName);
      return "done";
    },
    async stop() {
      await systemctl("disable", "--now", systemdName);
    },
    async reload() {
      await systemctl("daemon-reload");
    },
    async state() {
      return (await manage(cli, "systemctl", [...scope, "is-active", systemdName], { mayFail: true })) ?? "";
    },
    byHand: {
      start: [shown("daemon-reload"), shown("enable", "--now", systemdName)],
      log: `journalctl ${system ? "-u" : "--user -u"} ${systemdName}`,
    },
  };
}

function launchdPlace(cli: Cli, { system }: InstallOptions): Place {
  const library = system ? "/Library/LaunchDaemons" : join(homeOf(cli.env), "Library", "LaunchAgents");
  const file = join(library, `${launchdLabel}.plist`);
  const domain = system ? "system" : `gui/${userInfo().uid}`;
  const launchctl = (args: string[], options?: { mayFail: boolean }) =>
    manage(cli, "launchctl", args, options);
  return {
    manager: "launchd",
    file,
    textOf: launchdPlist,
    async start(isChanged) {
      // Unloading fails for a service not loaded; the failure is ignored.
      if (isChanged) await launchctl(["bootout", `${domain}/${launchdLabel}`], { mayFail: true });
      const isLoaded = await launchctl(["bootstrap", domain, file], { mayFail: !isChanged });
      return isLoaded === undefined ? undefined : "done";
    },
    async stop() {
      await launchctl(["bootout", `${domain}/${launchdLabel}`], { mayFail: true });
    },
    async reload() {},
    async state() {
      const printed = (await launchctl(["print", `${domain}/${launchdLabel}`], { mayFail: true })) ?? "";
      return /^\s*state = (.+)$/m.exec(printed)?.[1] ?? "";
    },
    byHand: {
      start: [`launchctl bootstrap ${domain} ${file}`],
      log: `tail -n 100 ${logFileOf(cli.env, system)}`,
    },
  };
}

/** Time limit of systemctl and launchctl in ms; a stop waits for running programs. */
const managerTimeoutMs = 60_000;

/** Runs a service manager's command and returns its output; undefined if the command is missing. */
async function manage(
  cli: Cli,
  program: string,
  args: string[],
  options: { mayFail?: boolean } = {},
): Promise<string | undefined> {
  const path = findProgram(program, cli.env);
  if (!path) return undefined;
  return new Promise((done, fail) => {
    execFile(path, args, { timeout: managerTimeoutMs, env: cli.env }, (error, out, err) => {
      if (!error || options.mayFail) return done(out.trim());
      fail(
        new Failure(
          exitCodes.failed,
          `${program} ${args.join(" ")} failed: ${err.trim() || error.message}`,
          "the file is written; the command can be given again by hand",
        ),
      );
    });
  });
}

/** The log of a daemon started by launchd. */
export function logFileOf(env: Environment, system: boolean | undefined): string {
  return system
    ? "/Library/Logs/pinion-device.log"
    : join(homeOf(env), "Library", "Logs", "pinion-device.log");
}

export function homeOf(env: Environment): string {
  return env.HOME || homedir();
}
