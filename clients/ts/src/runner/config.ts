import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import { checkProxySetting, type ProxySetting } from "../network/proxy.ts";
import { type KeepLimits, keepLimits } from "../outbox/kept.ts";
import { readRegularFileSync } from "../regular-file.ts";
import { ConfigError, lineOf, problemsOf } from "./config-problems.ts";
import type { ConfinementSettings } from "./confinement.ts";
import {
  type AgentSettings,
  agentKeys,
  agentSettingsOf,
  problemsOfAgentKeys,
  usualCommand,
} from "./executor-settings.ts";
import { inheritedVariables } from "./inherited-variables.ts";
import { parseBytes, parseDurationMs } from "./quantities.ts";
import {
  KEEP_BYTES,
  KEEP_MS,
  WORKSPACE_NAME,
  type WorkspaceConfig,
  workspaceSchema,
} from "./workspace-settings.ts";

/** Start settings of one agent kind. */
export interface ExecutorConfig extends AgentSettings {
  kind: string;
  /** Program and arguments, started without a shell. */
  command: [string, ...string[]];
  /**
   * Input of the program: the prompt, the whole assignment as JSON, or nothing. Stdin is closed
   * afterwards.
   */
  stdin: "prompt" | "assignment" | "none";
  /**
   * Upper bound in ms; the assignment's own timeout applies if shorter. Undefined: only the
   * assignment's.
   */
  timeoutMs: number | undefined;
  /** Absolute path; undefined: the daemon's directory. */
  cwd: string | undefined;
  /** Time without output in ms, after which the program is ended; undefined: no limit. */
  idleTimeoutMs: number | undefined;
  /** `output`: a successful end without output counts as a failure. */
  expect: "anything" | "output";
  /**
   * Names of the variables passed on from the daemon's environment. No other variables are passed
   * on.
   */
  env: string[];
  setEnv: Record<string, string>;
  outputLimitBytes: number;
  /** Time from SIGTERM to SIGKILL, in ms. */
  killGraceMs: number;
  /** Isolation from the daemon. */
  confinement: ConfinementSettings;
}

export interface DeviceConfig {
  label: string | undefined;
  maxConcurrency: number;
  /** Executor kind for assignments without a kind. */
  defaultExecutor: string | undefined;
  /** Command for printing the device's token; the identity file may then omit the token. */
  tokenCommand: [string, ...string[]] | undefined;
  /** Proxy between this device and its server. Undefined: the daemon's environment applies. */
  proxy: ProxySetting | undefined;
  /** Whether the daemon replaces its program by itself when its server gives a newer version. */
  upgrade: "manual" | "automatic";
  /** Bounds of kept acknowledged results, in time and size, for a database failover. */
  keep: KeepLimits;
  executors: Record<string, ExecutorConfig>;
  workspaces: Record<string, WorkspaceConfig>;
}

/** Bound on the file in bytes, far above usual configurations. */
const CONFIG_BYTES_MAX = 1024 * 1024;
const OUTPUT_LIMIT_BYTES_MAX = 16 * 1024 * 1024;
const KIND = /^[a-z0-9][a-z0-9._-]*$/;

const duration = z.string().transform((text, context) => {
  const ms = parseDurationMs(text);
  if (ms !== undefined && ms > 0) return ms;
  context.addIssue({
    code: "custom",
    message: `"${text}" is not a length of time; write for example "30m" or "5s"`,
  });
  return z.NEVER;
});

const size = z.union([z.string(), z.int()]).transform((value, context) => {
  const bytes = parseBytes(String(value));
  if (bytes !== undefined && bytes <= OUTPUT_LIMIT_BYTES_MAX) return bytes;
  context.addIssue({
    code: "custom",
    message: `"${value}" is not a size up to 16MiB; write for example "1MiB"`,
  });
  return z.NEVER;
});

const keptSize = z.union([z.string(), z.int()]).transform((value, context) => {
  const bytes = parseBytes(String(value));
  if (bytes !== undefined) return bytes;
  context.addIssue({ code: "custom", message: `"${value}" is not a size; write for example "2GiB"` });
  return z.NEVER;
});

const proxy = z.string().transform((url, context): ProxySetting => {
  const setting: ProxySetting = { url, setting: "proxy in device.toml" };
  try {
    checkProxySetting(setting);
    return setting;
  } catch {
    context.addIssue({
      code: "custom",
      message: 'is not the address of a proxy; write for example "http://proxy.example.org:3128", or "none"',
    });
    return z.NEVER;
  }
});

const variableName = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "is not the name of an environment variable");

const command = z.array(z.string()).transform(([program, ...args], context): [string, ...string[]] => {
  if (program !== undefined && program !== "") return [program, ...args];
  context.addIssue({ code: "custom", message: 'names no program; write for example ["claude", "-p"]' });
  return z.NEVER;
});

const executorKeys = z.strictObject({
  ...agentKeys,
  command: command.optional(),
  stdin: z.enum(["prompt", "assignment", "none"]).optional(),
  timeout: duration.optional(),
  idle_timeout: duration.optional(),
  expect: z.enum(["anything", "output"]).default("anything"),
  cwd: z.string().min(1).optional(),
  env: z.array(variableName).optional(),
  env_add: z.array(variableName).default([]),
  set_env: z.record(variableName, z.string()).default({}),
  output_limit: size.default(1024 * 1024),
  kill_grace: duration.default(5_000),
  run_as: z.string().min(1).max(64).optional(),
  isolate: z.boolean().optional(),
});

const executorSchema = executorKeys.superRefine((keys, context) => {
  for (const { key, message } of problemsOfAgentKeys(keys)) {
    context.addIssue({ code: "custom", path: [key], message });
  }
});

const configSchema = z.strictObject({
  device: z
    .strictObject({
      label: z.string().min(1).max(100).optional(),
      max_concurrency: z.int().min(1).max(64).default(1),
      default_executor: z.string().optional(),
      token_command: command.optional(),
      proxy: proxy.optional(),
      upgrade: z.enum(["manual", "automatic"]).default("manual"),
      keep_results: duration.default(keepLimits.ms),
      keep_results_size: keptSize.default(keepLimits.bytes),
      run_as: z.string().min(1).max(64).optional(),
      isolate: z.boolean().default(false),
    })
    .prefault({}),
  executors: z
    .record(z.string().regex(KIND, "a kind is made of a-z, 0-9, '.', '_' and '-'").max(64), executorSchema)
    .default({}),
  workspaces: z
    .record(
      z.string().regex(WORKSPACE_NAME, "a name is made of a-z, 0-9, '.', '_' and '-'").max(64),
      workspaceSchema({ duration, size: keptSize }),
    )
    .default({}),
});

/** Reads the configuration. Throws a ConfigError, also for an unreadable file. */
export function loadConfig(path: string): DeviceConfig {
  // A person may place the file elsewhere by a link.
  const found = readRegularFileSync(path, { bytesMax: CONFIG_BYTES_MAX, isLinkFollowed: true });
  if (found.kind === "read") return parseConfig(found.bytes.toString("utf8"), { file: path });
  const message = found.kind === "absent" ? "there is no such file" : found.problem;
  throw new ConfigError(path, [{ line: undefined, key: "", message }]);
}

/** Parses a configuration in TOML. Throws a ConfigError with the line and key of every problem. */
export function parseConfig(text: string, options: { file?: string } = {}): DeviceConfig {
  const file = options.file ?? "config";
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [firstLine = "it is not TOML"] = error.message.split("\n");
    const message = repeatedAt(text, error.line) ?? firstLine;
    throw new ConfigError(file, [{ line: error.line, key: "", message }]);
  }
  const parsed = configSchema.safeParse(raw);
  if (!parsed.success) {
    const problems = parsed.error.issues.flatMap((issue) => problemsOf(issue, text, knownKeys));
    problems.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
    throw new ConfigError(file, problems);
  }
  const { device, executors } = parsed.data;
  const kinds = Object.keys(executors);
  const defaultExecutor = device.default_executor ?? (kinds.length === 1 ? kinds[0] : undefined);
  if (defaultExecutor !== undefined && !kinds.includes(defaultExecutor)) {
    const known = kinds.length === 0 ? "none is configured" : `configured: ${kinds.join(", ")}`;
    throw new ConfigError(file, [
      {
        line: lineOf(text, ["device", "default_executor"]),
        key: "device.default_executor",
        message: `there is no executor "${defaultExecutor}" (${known})`,
      },
    ]);
  }
  return {
    label: device.label,
    maxConcurrency: device.max_concurrency,
    defaultExecutor,
    tokenCommand: device.token_command,
    proxy: device.proxy,
    upgrade: device.upgrade,
    keep: { ms: device.keep_results, bytes: device.keep_results_size },
    executors: Object.fromEntries(
      Object.entries(executors).map(([kind, executor]) => [kind, executorOf(kind, executor, device)]),
    ),
    workspaces: Object.fromEntries(
      Object.entries(parsed.data.workspaces).map(([name, workspace]) => [name, workspaceOf(name, workspace)]),
    ),
  };
}

/**
 * The executor for an assignment's kind; an empty kind means the default. Undefined if there is
 * none.
 */
export function findExecutor(config: DeviceConfig, agentKind: string): ExecutorConfig | undefined {
  const kind = agentKind === "" ? config.defaultExecutor : agentKind;
  return kind !== undefined && Object.hasOwn(config.executors, kind) ? config.executors[kind] : undefined;
}

function executorOf(
  kind: string,
  executor: z.output<typeof executorSchema>,
  device: z.output<typeof configSchema>["device"],
): ExecutorConfig {
  return {
    kind,
    ...agentSettingsOf(executor),
    command: executor.command ?? usualCommand(executor.type, executor.preset) ?? [""],
    stdin: executor.stdin ?? "prompt",
    timeoutMs: executor.timeout,
    cwd: executor.cwd === undefined ? undefined : expandHome(executor.cwd),
    idleTimeoutMs: executor.idle_timeout,
    expect: executor.expect,
    env: [...new Set([...(executor.env ?? inheritedVariables(executor.type)), ...executor.env_add])],
    setEnv: executor.set_env,
    outputLimitBytes: executor.output_limit,
    killGraceMs: executor.kill_grace,
    confinement: {
      runAs: executor.run_as ?? device.run_as,
      isIsolated: executor.isolate ?? device.isolate,
    },
  };
}

function workspaceOf(
  name: string,
  workspace: z.output<typeof configSchema>["workspaces"][string],
): WorkspaceConfig {
  return {
    name,
    path: workspace.path === undefined ? undefined : expandHome(workspace.path),
    mode: workspace.mode,
    isParallel: workspace.parallel,
    keepMs: workspace.keep ?? KEEP_MS,
    keepBytes: workspace.keep_size ?? KEEP_BYTES,
  };
}

function expandHome(path: string): string {
  if (path === "~") return homedir();
  if (path.startsWith("~/")) return join(homedir(), path.slice(2));
  return isAbsolute(path) ? path : resolve(path);
}

function knownKeys(path: string[]): string[] {
  if (path.length === 0) return Object.keys(configSchema.shape);
  if (path[0] === "device") return Object.keys(configSchema.shape.device.def.innerType.shape);
  if (path[0] === "workspaces") return ["path", "mode", "parallel", "keep", "keep_size"];
  return path[0] === "executors" ? Object.keys(executorKeys.shape) : [];
}

/**
 * Words for a table that stands in the file twice, as after pasting an example; undefined for
 * another mistake.
 */
function repeatedAt(text: string, line: number): string | undefined {
  const lines = text.split("\n").map((one) => one.replace(/#.*$/, "").trim());
  const header = lines[line - 1] ?? "";
  const first = lines.indexOf(header);
  if (!/^\[[^[\]]+\]$/.test(header) || first >= line - 1) return undefined;
  return `${header} is already in line ${first + 1}; keep one of the two`;
}
