import { existsSync } from "node:fs";
import { installedAgents } from "@pinion/client";
import type { Environment } from "../cli.ts";
import { writeWhole } from "../data-files.ts";
import { reportArgument } from "../up/report-argument.ts";
import { selfCommand } from "./self.ts";

/** The executor of a first start: a local program free of charge. */
export const reportKind = "machine-report";

/** Agents listed as comments in the configuration if not installed. */
const usualAgents = [
  { kind: "claude-code", type: "claude-code" },
  { kind: "codex", type: "codex" },
];

/**
 * Writes the daemon's first configuration if there is none. `workingDir` is the directory of its
 * programs. Returns true if written.
 */
export function writeDeviceConfigOnce(
  path: string,
  options: { env: Environment; workingDir: string },
): boolean {
  if (existsSync(path)) return false;
  writeWhole(path, deviceConfig(options), 0o600);
  return true;
}

export function deviceConfig(options: { env: Environment; workingDir: string }): string {
  const cwd = JSON.stringify(options.workingDir);
  // Agents cost money, so none is the default.
  const installed = installedAgents(options.env);
  const agents = installed.flatMap(({ kind, type, preset, command }) => [
    "",
    `[executors.${kind}]`,
    `type = "${type}"`,
    ...(preset === undefined ? [] : [`preset = "${preset}"`]),
    `command = ${JSON.stringify(command)}`,
    `cwd = ${cwd}`,
    'timeout = "30m"',
  ]);
  const missing = usualAgents
    .filter(({ kind }) => !installed.some((agent) => agent.kind === kind))
    .flatMap(({ kind, type }) => [
      "",
      `# ${kind} was not found. Once it is installed and logged in:`,
      `# [executors.${kind}]`,
      `# type = "${type}"`,
      `# cwd = ${cwd}`,
      '# timeout = "30m"',
    ]);
  return `${[
    "# What this device may execute. Watchers name a kind; only what stands here is ever started.",
    "# Read when it changes; while it is wrong, the one before it stays in force.",
    "",
    "[device]",
    "# For watchers that name no kind. Change it to an agent once you want one to do the work.",
    `default_executor = "${reportKind}"`,
    "max_concurrency = 2",
    "",
    "# A program of Pinion's own: reports on this machine and repository, and costs nothing.",
    `[executors.${reportKind}]`,
    `command = ${JSON.stringify([...selfCommand(), reportArgument])}`,
    'stdin = "prompt"',
    `cwd = ${cwd}`,
    'timeout = "1m"',
    ...agents,
    ...missing,
    "",
    "# A folder or repository that runs may work in; watchers name it. See docs/executors.md.",
    "# [workspaces.app]",
    '# path = "~/work/app"',
    '# mode = "worktree"',
  ].join("\n")}\n`;
}
