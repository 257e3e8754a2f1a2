import { readFileSync } from "node:fs";
import { create, fromJson, type JsonObject } from "@bufbuild/protobuf";
import { durationFromMs, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { type QuestionPolicy, QuestionPolicySchema } from "#gen/pinion/v1/activity_pb.js";
import { type Notify, NotifySchema } from "#gen/pinion/v1/destination_pb.js";
import {
  type ConcurrencyGroup,
  ConcurrencyGroupSchema,
  type WatcherSpec,
  WatcherSpecSchema,
} from "#gen/pinion/v1/watcher_pb.js";
import type { Clients } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { deviceId } from "../lookup.ts";
import { parseBudget } from "../print/budget.ts";
import { parseRate } from "../print/rates.ts";
import { parseLength } from "../print/times.ts";
import * as words from "../print/words.ts";

/** Options of `watchers create` and `watchers update`; each sets a field of the spec. */
export type SpecOptions = {
  name?: string;
  prompt?: string;
  promptFile?: string;
  schedule?: string;
  at?: string;
  every?: string;
  zone?: string;
  device?: string;
  select?: string;
  spread?: string;
  group?: string;
  groupMax?: number;
  groupPer?: string;
  priority?: string;
  rate?: string;
  agent?: string;
  agentKind?: string;
  timeout?: string;
  attempts?: number;
  overlap?: string;
  catchup?: string;
  catchupWindow?: string;
  jitter?: string;
  cooldown?: string;
  startDeadline?: string;
  notify?: string;
  schema?: string;
  workspace?: string;
  runBudget?: string;
  dayBudget?: string;
  continue?: string;
  questionTimeout?: string;
  questionDefault?: string;
  questionResponders?: string;
  after?: string[];
  afterCondition?: string;
  redact?: string[];
  tell?: string[];
};

export function addSpecOptions(command: Command, wholeNumber: (text: string) => number): Command {
  return command
    .option("--name <text>", "shown to people")
    .option("--prompt <text>", "what the agent is asked to do")
    .option("--prompt-file <file>", 'the same from a file; "-" reads standard input')
    .option("--schedule <cron>", 'five fields, six with seconds first, or "@hourly"; "" for none')
    .option(
      "--at <moment>",
      "fires once: 2026-12-01T09:00 in the zone of the schedule, or with Z or an offset",
    )
    .option("--every <length>", 'fires that often: 90m, or "90m from 2026-12-01T09:00" for an anchor')
    .option("--zone <zone>", "IANA time zone of the schedule")
    .option("--device <device>", 'the device it is pinned to (id or label); "" lets fleet workers take it')
    .option(
      "--select <condition>",
      'in place of a device: a condition over os, arch and labels, \'os == "macos" && "gpu" in labels\'; "" for none',
    )
    .option("--spread <mode>", `on how many of the devices that match: ${words.spreadMode.all.join(" or ")}`)
    .option("--group <name>", 'its concurrency group: few runs of it are active at once; "" for none')
    .option("--group-max <n>", "so many of them (1)", wholeNumber)
    .option("--group-per <scope>", `counted per ${words.groupScope.all.join(" or ")}`)
    .option("--priority <n>", "among runs that wait for their place, -100 to 100; higher ones begin first")
    .option(
      "--rate <limit>",
      'its rate limit: a key and runs a minute, "anthropic=20", or the key alone; "" for none',
    )
    .option("--agent <agent>", "the agent; default: the org's default agent")
    .option(
      "--agent-kind <kind>",
      'the executor that is meant, for example claude-code; "" leaves it to the device',
    )
    .option("--timeout <length>", "how long one attempt may take, 1s to 7d")
    .option("--attempts <n>", "attempts per run, 1 to 20", wholeNumber)
    .option(
      "--overlap <policy>",
      `a slot is due while a run is active: ${words.overlapPolicy.all.join(" or ")}`,
    )
    .option("--catchup <policy>", `slots of a downtime: ${words.catchupPolicy.all.join(" or ")}`)
    .option("--catchup-window <length>", "slots older than this are missed, 1m to 30d")
    .option("--jitter <length>", "a stable delay up to this, 0s to 1h")
    .option("--cooldown <length>", "no scheduled run sooner than this after the last, 0s to 30d")
    .option("--start-deadline <length>", 'skip a run that has not started by then, 1s to 30d; "" for never')
    .option("--notify <when>", `a notification on the device's desktop: ${words.notification.all.join(", ")}`)
    .option(
      "--tell <destination=when>",
      `send results there: ${words.notifyWhen.all.join(", ")}; may be repeated; "" for nowhere`,
      (text: string, before?: string[]) => [...(before ?? []), text],
    )
    .option("--schema <file>", "JSON schema of the result that the agent is asked for")
    .option(
      "--workspace <name>",
      "the device's workspace to work in; \"\" for the agent's or the executor's own",
    )
    .option("--run-budget <budget>", "what one run may use: tokens, a cost, or both: 50000, $0.50")
    .option("--day-budget <budget>", "what its runs of a day (UTC) may use; slots are skipped beyond it")
    .option("--continue <mode>", `what a run begins with: ${words.continueMode.all.join(" or ")}`)
    .option("--question-timeout <length>", "how long its agent waits for an answer, 10s to 7d (10m)")
    .option(
      "--question-default <answer>",
      `taken when nobody answers: ${words.questionDefault.all.join(" or ")}`,
    )
    .option("--question-responders <who>", `who may answer: ${words.questionResponders.all.join(", ")}`)
    .option(
      "--after <watchers...>",
      'watchers (ids or slugs) whose ends start this one, with {run, result} as input; "" for none',
    )
    .option(
      "--after-condition <cel>",
      'which ends do: run.status == "completed" && result.structured.severity > 3; "" for completed ones',
    )
    .option(
      "--redact <paths...>",
      'dotted paths of an input that are never shown: commits.*.author; "" for none',
    );
}

/** The fields from the options, and their names for an update mask. */
export async function specOf(
  clients: Clients,
  options: SpecOptions,
): Promise<{ spec: WatcherSpec; paths: string[] }> {
  const spec = create(WatcherSpecSchema);
  const paths: string[] = [];
  const set = <Option>(option: Option | undefined, path: string, assign: (option: Option) => void) => {
    if (option === undefined) return;
    assign(option);
    paths.push(path);
  };
  const length = (text: string, name: string) =>
    text === "" ? undefined : durationFromMs(parseLength(text, name));

  set(options.name, "name", (name) => {
    spec.name = name;
  });
  set(promptOf(options), "prompt", (prompt) => {
    spec.prompt = prompt;
  });
  set(scheduleOf(options), "schedule", (schedule) => {
    spec.schedule = schedule;
  });
  set(options.zone, "time_zone", (zone) => {
    spec.timeZone = zone;
  });
  set(options.agent, "agent_id", (agent) => {
    spec.agentId = agent;
  });
  set(options.agentKind, "agent_kind", (kind) => {
    spec.agentKind = kind;
  });
  set(options.attempts, "max_attempts", (attempts) => {
    spec.maxAttempts = attempts;
  });
  set(options.timeout, "timeout", (text) => {
    spec.timeout = length(text, "--timeout");
  });
  set(options.catchupWindow, "catchup_window", (text) => {
    spec.catchupWindow = length(text, "--catchup-window");
  });
  set(options.jitter, "jitter", (text) => {
    spec.jitter = length(text, "--jitter");
  });
  set(options.cooldown, "min_cooldown", (text) => {
    spec.minCooldown = length(text, "--cooldown");
  });
  set(options.startDeadline, "start_deadline", (text) => {
    spec.startDeadline = length(text, "--start-deadline");
  });
  set(options.overlap, "overlap", (word) => {
    spec.overlap = words.overlapPolicy.value(word, "--overlap");
  });
  set(options.catchup, "catchup", (word) => {
    spec.catchup = words.catchupPolicy.value(word, "--catchup");
  });
  set(options.notify, "notification", (word) => {
    spec.notification = words.notification.value(word, "--notify");
  });
  set(options.tell, "notify", (entries) => {
    spec.notify = entries.filter((entry) => entry !== "").map(notifyEntry);
  });
  set(options.schema, "extraction_schema", (file) => {
    spec.extractionSchema = file ? readSchema(file) : undefined;
  });
  set(options.workspace, "workspace", (workspace) => {
    spec.workspace = workspace;
  });
  set(options.runBudget, "run_budget", (text) => {
    spec.runBudget = parseBudget(text, "--run-budget");
  });
  set(options.dayBudget, "day_budget", (text) => {
    spec.dayBudget = parseBudget(text, "--day-budget");
  });
  set(options.continue, "continue_mode", (word) => {
    spec.continueMode = words.continueMode.value(word, "--continue");
  });
  set(questionsOf(options), "questions", (questions) => {
    spec.questions = questions;
  });
  set(options.after, "after", (watchers) => {
    spec.after = watchers.filter((watcher) => watcher !== "");
  });
  set(options.afterCondition, "after_condition", (condition) => {
    spec.afterCondition = condition;
  });
  set(options.redact, "redact", (paths) => {
    spec.redact = paths.filter((path) => path !== "");
  });
  const device = options.device ? await deviceId(clients, options.device) : options.device;
  set(device, "device_id", (id) => {
    spec.deviceId = id;
  });
  set(options.select, "selector", (selector) => {
    spec.selector = selector;
  });
  // A watcher has either a device or a selector; setting either clears the other.
  if (options.select && device === undefined) paths.push("device_id");
  if (device && options.select === undefined) paths.push("selector");
  set(options.spread, "spread", (word) => {
    spec.spread = words.spreadMode.value(word, "--spread");
  });
  set(groupOf(options), "group", (group) => {
    if (group !== "none") spec.group = group;
  });
  set(options.priority, "priority", (text) => {
    spec.priority = priorityOf(text);
  });
  set(options.rate, "rate_limit", (text) => {
    const limit = parseRate(text, "--rate");
    if (limit) spec.rateLimit = limit;
  });
  return { spec, paths };
}

function notifyEntry(text: string): Notify {
  const [, to, when] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (!to || !when) {
    const advice = `for example ops=failure; when is one of ${words.notifyWhen.all.join(", ")}`;
    throw new Failure(exitCodes.usage, `--tell: "${text}" is not destination=when`, advice);
  }
  return create(NotifySchema, { to, when: words.notifyWhen.value(when, "--tell") });
}

/** The whole policy; fields without an option get the default. */
function questionsOf(options: SpecOptions): QuestionPolicy | undefined {
  const { questionTimeout, questionDefault, questionResponders } = options;
  if (questionTimeout === undefined && questionDefault === undefined && questionResponders === undefined) {
    return undefined;
  }
  return create(QuestionPolicySchema, {
    ...(questionTimeout
      ? { timeout: durationFromMs(parseLength(questionTimeout, "--question-timeout")) }
      : {}),
    defaultAnswer: questionDefault ? words.questionDefault.value(questionDefault, "--question-default") : 0,
    responders: questionResponders
      ? words.questionResponders.value(questionResponders, "--question-responders")
      : 0,
  });
}

/** The whole group; fields without an option get the default. */
function groupOf({ group, groupMax, groupPer }: SpecOptions): ConcurrencyGroup | "none" | undefined {
  if (group === undefined) {
    if (groupMax === undefined && groupPer === undefined) return undefined;
    throw new Failure(
      exitCodes.usage,
      "--group-max and --group-per say something of a group; name it with --group",
    );
  }
  if (group === "") return "none";
  return create(ConcurrencyGroupSchema, {
    ...{ name: group, max: groupMax ?? 1 },
    scope: groupPer === undefined ? 0 : words.groupScope.value(groupPer, "--group-per"),
  });
}

function priorityOf(text: string): number {
  const priority = Number(text);
  if (!Number.isInteger(priority) || text.trim() === "") {
    throw new Failure(exitCodes.usage, `--priority: "${text}" is no whole number`);
  }
  return priority;
}

function scheduleOf({ schedule, at, every }: SpecOptions): string | undefined {
  const given = [
    schedule,
    at === undefined ? at : `@at ${at}`,
    every === undefined ? every : `@every ${every}`,
  ].filter((text) => text !== undefined);
  if (given.length > 1) throw new Failure(exitCodes.usage, "--schedule, --at and --every exclude each other");
  return given[0];
}

function promptOf(options: SpecOptions): string | undefined {
  if (options.prompt !== undefined && options.promptFile !== undefined) {
    throw new Failure(exitCodes.usage, "--prompt and --prompt-file exclude each other");
  }
  return options.promptFile === undefined ? options.prompt : readText(options.promptFile, "--prompt-file");
}

function readText(file: string, option: string): string {
  try {
    // File descriptor 0 is standard input.
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    throw new Failure(exitCodes.usage, `${option}: ${(error as Error).message}`);
  }
}

function readSchema(file: string): JsonObject {
  const text = readText(file, "--schema");
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch {
    // The error is thrown below, together with other invalid JSON.
  }
  throw new Failure(exitCodes.usage, `--schema: ${file} holds no JSON object`);
}

/** The input of a trigger, from `--input` or `--input-file`; undefined without either. */
export function inputOf(options: { input?: string; inputFile?: string }): Value | undefined {
  if (options.input !== undefined && options.inputFile !== undefined) {
    throw new Failure(exitCodes.usage, "--input and --input-file exclude each other");
  }
  const text = options.inputFile === undefined ? options.input : readText(options.inputFile, "--input-file");
  if (text === undefined) return undefined;
  try {
    return fromJson(ValueSchema, JSON.parse(text));
  } catch (error) {
    const option = options.inputFile === undefined ? "--input" : "--input-file";
    throw new Failure(exitCodes.usage, `${option}: is no JSON: ${(error as Error).message}`);
  }
}
