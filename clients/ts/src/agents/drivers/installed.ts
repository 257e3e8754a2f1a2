import { execFile } from "node:child_process";
import { type Confinement, confine, findInPath, unconfined } from "../../runner/confinement.ts";
import { ACP_PRESETS, type ExecutorType, usualCommand } from "../../runner/executor-settings.ts";

/** Time limit of `--version`, in ms; after the limit the version is unknown. */
const VERSION_MS_MAX = 5_000;
const VERSION_BYTES_MAX = 64 * 1024;
const VERSION_CHARACTERS_MAX = 200;

/** An agent installed on this machine. */
export interface InstalledAgent {
  /** Name for a stanza of device.toml. */
  kind: string;
  type: Exclude<ExecutorType, "command">;
  preset: string | undefined;
  /** With the full path: a service has a shorter PATH than a shell. */
  command: [string, ...string[]];
}

/** The agents found on the PATH, in order of preference. */
export function installedAgents(env: NodeJS.ProcessEnv): InstalledAgent[] {
  const path = env.PATH ?? "";
  const known: Omit<InstalledAgent, "command">[] = [
    { kind: "claude-code", type: "claude-code", preset: undefined },
    { kind: "codex", type: "codex", preset: undefined },
    ...Object.keys(ACP_PRESETS).map((preset) => ({ kind: preset, type: "acp" as const, preset })),
  ];
  return known.flatMap((agent) => {
    const [program, ...args] = usualCommand(agent.type, agent.preset) ?? [""];
    const found = findInPath(program, path);
    return found === undefined ? [] : [{ ...agent, command: [found, ...args] }];
  });
}

/**
 * First line with a version in the output of `--version`; empty if there is none or the program is
 * missing. The program is confined as its runs are, for a run may have changed it. Never rejects.
 */
export function versionOf(
  command: readonly string[],
  given: Record<string, string>,
  confinement: Confinement = unconfined,
): Promise<string> {
  const [program = "", ...args] = command;
  // A preset's own arguments would open a session; an interpreter needs its script.
  const script = args.filter((arg) => /[/.]/.test(arg) && !arg.startsWith("-")).slice(0, 1);
  const start = confine(confinement, {
    command: [program, ...script, "--version"],
    ...{ env: given, cwd: undefined, shown: [] },
  });
  if ("missing" in start) return Promise.resolve("");
  const { command: asked, env, uid, gid } = start;
  const [starter, ...rest] = asked;
  return new Promise((resolve) => {
    const options = {
      timeout: VERSION_MS_MAX,
      maxBuffer: VERSION_BYTES_MAX,
      env,
      killSignal: "SIGKILL" as const,
      // Another user may have no right to the daemon's directory.
      ...(uid === undefined ? {} : { uid, gid, cwd: "/" }),
    };
    const child = execFile(starter, rest, options, (error, stdout) => {
      const line = stdout
        .split("\n")
        .map((each) => each.trim())
        .find((each) => /\d+\.\d+/.test(each));
      resolve(error === null && line !== undefined ? line.slice(0, VERSION_CHARACTERS_MAX) : "");
    });
    child.on("error", () => resolve(""));
    child.stdin?.end();
  });
}
