import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { confinementOf, type DeviceConfig, isolationProblem, loadConfig } from "@pinion/client";
import type { Environment } from "../cli.ts";
import { isOpen } from "../device/conceal.ts";
import { daemonPid } from "../device/state-dir.ts";
import type { Check } from "./check.ts";

/** Checks the isolation between the daemon and its programs on this machine. */
export async function checkConfinement(options: {
  configFile: string;
  stateDir: string;
  env: Environment;
}): Promise<Check[]> {
  const config = usable(options.configFile);
  if (!config) return [];
  const executors = Object.values(config.executors);
  const programs = executors.map(({ kind, confinement }): Check => {
    const name = `programs ${kind}`;
    const found = confinementOf(confinement, { hidden: [], path: options.env.PATH });
    if ("problem" in found) {
      const advice = `mend that, or take the setting out of [executors.${kind}]; until then nothing is started`;
      return { name, verdict: "bad", found: found.problem, advice };
    }
    const as = found.runAs ? `as ${found.runAs.name}` : "as this user";
    if (found.bwrap) {
      return {
        name,
        verdict: "good",
        found: `isolated by bubblewrap, ${as}: they see neither the daemon nor its files, and none outlives its run`,
      };
    }
    if (found.runAs) {
      return { name, verdict: "good", found: `${as}: the daemon's files and processes are closed to them` };
    }
    return {
      name,
      verdict: "absent",
      found: `${as}, not kept apart from the daemon`,
      advice: adviceOf(options.env),
    };
  });
  const isOpenToAll = programs.some(({ verdict }) => verdict === "absent");
  return [
    ...programs,
    ...(isOpenToAll
      ? [checkToken(config, options), ...(await checkEnvironment(options.stateDir)), checkMemory()]
      : []),
  ].filter((check) => check !== undefined);
}

function adviceOf(env: Environment): string {
  const problem = isolationProblem(env.PATH);
  return problem === undefined
    ? "`isolate = true` under [device] in device.toml keeps them apart; bubblewrap is here and works"
    : `isolate = true would keep them apart, but: ${problem}`;
}

function usable(file: string): DeviceConfig | undefined {
  try {
    return existsSync(file) ? loadConfig(file) : undefined;
  } catch {
    // Another check reports the problem of the configuration.
    return undefined;
  }
}

/** Checks whether a program of the same user can read the token. */
function checkToken(config: DeviceConfig, { stateDir }: { stateDir: string }): Check | undefined {
  const name = "token's place";
  const file = join(stateDir, "identity.json");
  let isStored: boolean;
  try {
    isStored = (JSON.parse(readFileSync(file, "utf8")) as { token?: string }).token !== "";
  } catch {
    return undefined;
  }
  if (!isStored) {
    const from = config.tokenCommand ? "token_command" : "a credential of systemd";
    return {
      name,
      verdict: "good",
      found: `not in a file; the daemon has it from ${from}, then in memory only`,
    };
  }
  return {
    name,
    verdict: "absent",
    found: `${file}, which programs that run as this user can read; what they print is searched for it`,
    advice:
      "keep it in a keychain (token_command) or a systemd credential, or isolate the programs; docs/security.md",
  };
}

/** Checks the daemon's environment, readable by programs of the same user, for secrets. */
async function checkEnvironment(stateDir: string): Promise<Check[]> {
  const pid = await daemonPid(stateDir);
  if (pid === undefined) return [];
  let names: string[];
  try {
    names = readFileSync(`/proc/${pid}/environ`, "utf8")
      .split("\0")
      .map((entry) => [entry.split("=", 1)[0] ?? "", entry.slice(entry.indexOf("=") + 1)] as const)
      .filter(([variable, value]) => variable !== "" && !isOpen(variable, value))
      .map(([variable]) => variable);
  } catch {
    // No /proc, or another user's daemon.
    return [];
  }
  const name = "daemon's environment";
  if (names.length === 0) return [{ name, verdict: "good", found: "holds no secrets for programs to read" }];
  return [
    {
      name,
      verdict: "doubtful",
      found: `programs can read ${names.slice(0, 5).join(", ")}${names.length > 5 ? ", …" : ""} in it`,
      advice:
        "start the daemon anew with this version, by `pinion device run`, which takes them out of sight",
    },
  ];
}

/** Checks whether programs of the same user can read the daemon's memory. */
function checkMemory(): Check | undefined {
  if (process.platform !== "linux") return undefined;
  const name = "daemon's memory";
  let scope = "0";
  try {
    scope = readFileSync("/proc/sys/kernel/yama/ptrace_scope", "utf8").trim();
  } catch {
    // A kernel without Yama lets processes of a user trace each other.
  }
  if (scope !== "0" && process.getuid?.() !== 0) {
    return { name, verdict: "good", found: `closed to its programs (kernel.yama.ptrace_scope = ${scope})` };
  }
  return {
    name,
    verdict: "absent",
    found:
      process.getuid?.() === 0
        ? "open to programs that run as root"
        : "open to programs of the same user (kernel.yama.ptrace_scope = 0)",
    advice:
      "isolate the programs, or run them as another user; sysctl kernel.yama.ptrace_scope=1 closes it for users",
  };
}
