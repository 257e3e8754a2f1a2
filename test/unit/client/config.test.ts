import { homedir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findExecutor, parseConfig } from "../../../clients/ts/src/runner/config.ts";
import { ConfigError } from "../../../clients/ts/src/runner/config-problems.ts";
import { formatDuration, parseBytes, parseDurationMs } from "../../../clients/ts/src/runner/quantities.ts";

const full = `
[device]
label = "my laptop"
max_concurrency = 2
default_executor = "claude-code"
[executors.claude-code]
command = ["claude", "-p"]
stdin = "prompt"          # "prompt" | "assignment" (JSON) | "none"
timeout = "30m"           # upper bound
cwd = "~/work"
env = ["PATH", "HOME", "LANG"]   # allow-list of inherited names
set_env = { FOO = "bar" }
output_limit = "1MiB"
kill_grace = "5s"
`;

function problemsOf(text: string): string[] {
  try {
    parseConfig(text, { file: "device.toml" });
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.message.split("\n");
  }
}

test("the whole form is read", () => {
  expect(parseConfig(full)).toMatchObject({
    label: "my laptop",
    maxConcurrency: 2,
    proxy: undefined,
    workspaces: {},
    tokenCommand: undefined,
    defaultExecutor: "claude-code",
    executors: {
      "claude-code": {
        kind: "claude-code",
        command: ["claude", "-p"],
        stdin: "prompt",
        timeoutMs: 1_800_000,
        cwd: join(homedir(), "work"),
        env: ["PATH", "HOME", "LANG"],
        setEnv: { FOO: "bar" },
        outputLimitBytes: 1_048_576,
        killGraceMs: 5_000,
        idleTimeoutMs: undefined,
        expect: "anything",
        confinement: { runAs: undefined, isIsolated: false },
      },
    },
  });
});

test("a table that was pasted a second time is named with the line of the first", () => {
  const pasted =
    '[device]\n[executors.claude]\ntype = "claude-code"\n\n[executors.claude] # again\ntype = "claude-code"\n';
  expect(problemsOf(pasted)).toEqual([
    "device.toml:5: [executors.claude] is already in line 2; keep one of the two",
  ]);
});

test("the short form means the same, and the only executor is the default", () => {
  const config = parseConfig(
    `[executors]\nclaude-code = { command = ["claude", "-p"], stdin = "prompt", timeout = "30m" }\n`,
  );
  expect(config.defaultExecutor).toBe("claude-code");
  expect(findExecutor(config, "")?.command).toEqual(["claude", "-p"]);
  expect(findExecutor(config, "claude-code")?.timeoutMs).toBe(1_800_000);
  expect(findExecutor(config, "codex")).toBeUndefined();
  expect(findExecutor(config, "constructor")).toBeUndefined();
  expect(config.executors["claude-code"]?.env).not.toContain("ANTHROPIC_API_KEY");
});

test("an empty file is a device that can run nothing", () => {
  expect(parseConfig("").keep).toEqual({ ms: 24 * 3_600_000, bytes: 256 * 1024 * 1024 });
  expect(parseConfig('[device]\nkeep_results = "2h"\nkeep_results_size = "1GiB"').keep).toEqual({
    ms: 2 * 3_600_000,
    bytes: 1024 ** 3,
  });
  expect(parseConfig("")).toMatchObject({ maxConcurrency: 1, executors: {}, defaultExecutor: undefined });
});

test("an unknown key is named with its line, and with the key that was probably meant", () => {
  expect(problemsOf(full.replace("kill_grace", "kil_grace"))).toEqual([
    'device.toml:14: executors.claude-code.kil_grace: unknown key; did you mean "kill_grace"?',
  ]);
  expect(problemsOf(full.replace("max_concurrency", "max-concurrency"))).toEqual([
    'device.toml:4: device.max-concurrency: unknown key; did you mean "max_concurrency"?',
  ]);
  expect(problemsOf("[executor.x]\ncommand = ['x']\n")).toEqual([
    'device.toml:1: executor: unknown key; did you mean "executors"?',
  ]);
});

test("every problem of a file is named at once", () => {
  const text = `[device]
max_concurrency = 100
[executors]
a = { command = [], stdin = "file" }
[executors.b]
command = ["b"]
timeout = "soon"
output_limit = "1TiB"
env = ["NOT A NAME"]
`;
  const problems = problemsOf(text);
  const places = problems.map((line) => line.split(": ").slice(0, 2).join(" "));
  expect(places).toEqual([
    "device.toml:2 device.max_concurrency",
    "device.toml:4 executors.a.command",
    "device.toml:4 executors.a.stdin",
    "device.toml:7 executors.b.timeout",
    "device.toml:8 executors.b.output_limit",
    "device.toml:9 executors.b.env",
  ]);
  expect(problems[3]).toContain('"soon" is not a length of time; write for example "30m"');
});

test("a default that is not configured is named, with what there is", () => {
  expect(problemsOf(full.replace('default_executor = "claude-code"', 'default_executor = "claude"'))).toEqual(
    ['device.toml:5: device.default_executor: there is no executor "claude" (configured: claude-code)'],
  );
});

test("a kind that no watcher could name is refused", () => {
  expect(problemsOf(`[executors."Claude Code"]\ncommand = ["claude"]\n`)[0]).toContain(
    "device.toml:1: executors.Claude Code: a kind is made of",
  );
});

test("a file that is not TOML is refused with its line", () => {
  expect(problemsOf("[device]\nlabel = \n")[0]).toMatch(/^device\.toml:2: /);
});

test("lengths of time and sizes are read as people write them", () => {
  expect(["30m", "1h30m", "500ms", "1.5s", "7d"].map(parseDurationMs)).toEqual([
    1_800_000, 5_400_000, 500, 1_500, 604_800_000,
  ]);
  expect(["", "5", "m", "-5s", "5 minutes", "s5"].map(parseDurationMs)).toEqual(Array(6).fill(undefined));
  expect(["1MiB", "512KiB", "2000", "1kB", "1.5KiB"].map(parseBytes)).toEqual([
    1_048_576, 524_288, 2_000, 1_000, 1_536,
  ]);
  expect(["", "MiB", "-1", "1XB"].map(parseBytes)).toEqual(Array(4).fill(undefined));
  expect([90_000, 150, 3_600_000].map(formatDuration)).toEqual(["1m30s", "150ms", "1h"]);
});

test("an agent's executor needs no command, and a command none of its keys", () => {
  const { executors } = parseConfig(`
[executors.claude-code]
type = "claude-code"
model = "opus"
[executors.any]
type = "acp"
preset = "gemini"
[executors.sh]
command = ["sh"]
`);
  expect(executors["claude-code"]).toMatchObject({
    command: ["claude"],
    egress: "enforce",
    permissions: "ask",
  });
  expect(executors.any?.command).toEqual(["gemini", "--acp"]);
  expect(executors.sh).toMatchObject({ type: "command", egress: "advisory" });
  const wrong = `[executors.a]
command = ["sh"]
model = "opus"
[executors.b]
type = "acp"
[executors.c]
type = "codex"
permission_mode = "plan"
stdin = "none"
[executors.d]
timeout = "1m"
`;
  expect(() => parseConfig(wrong, { file: "f" })).toThrow(
    [
      'f:3: executors.a.model: means nothing for type "command"; it is for claude-code, codex, acp',
      "f:4: executors.b.command: is missing; write it, or preset = one of claude-agent-acp, codex-acp, gemini, opencode",
      'f:8: executors.c.permission_mode: means nothing for type "codex"; it is for claude-code',
      'f:9: executors.c.stdin: means nothing for type "codex"; it is for command',
      'f:10: executors.d.command: is missing; write for example ["sh", "-c", "echo hello"], or a type',
    ].join("\n"),
  );
});

test("a workspace has a name, a mode and a place", () => {
  const { workspaces } = parseConfig(`
[workspaces.app]
path = "~/work/app"
mode = "worktree"
keep = "1h"
keep_size = "20GiB"
[workspaces.scratch]
mode = "empty"
`);
  expect(workspaces.app).toMatchObject({
    mode: "worktree",
    path: `${homedir()}/work/app`,
    keepMs: 3_600_000,
    keepBytes: 20 * 1024 ** 3,
  });
  expect(workspaces.scratch).toMatchObject({ mode: "empty", path: undefined });
  expect(() => parseConfig('[workspaces.a]\nmode = "copy"', { file: "f" })).toThrow(
    'f:1: workspaces.a.path: is missing; mode "copy" needs one',
  );
});
