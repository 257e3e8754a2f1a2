import { create, fromJson, type JsonObject } from "@bufbuild/protobuf";
import { durationFromMs, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { type QuestionPolicy, QuestionPolicySchema } from "#gen/pinion/v1/activity_pb.js";
import { type Notify, NotifySchema } from "#gen/pinion/v1/destination_pb.js";
import {
  type ConcurrencyGroup,
  ConcurrencyGroupSchema,
  type WatcherSpec,
  WatcherSpecSchema,
} from "#gen/pinion/v1/watcher_pb.js";
import { parseJson } from "../../../values/json.ts";
import { readInputText } from "../../apply/file/read-input.ts";
import type { Clients } from "../../context.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { deviceId } from "../../lookup.ts";
import { parseBudget } from "../../print/budget.ts";
import { parseRate } from "../../print/rates.ts";
import { parseLength } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import type { SpecOptions } from "./watcher-options.ts";

/** The options, with those merged that set one field together. */
async function givenOf(clients: Clients, options: SpecOptions) {
  const { device } = options;
  return {
    ...options,
    prompt: promptOf(options),
    schedule: scheduleOf(options),
    group: groupOf(options),
    questions: questionsOf(options),
    device: device ? await deviceId(clients, device) : device,
  };
}

type Given = Awaited<ReturnType<typeof givenOf>>;
type Field<Value> = [path: string, fields: (value: Value) => Partial<WatcherSpec>];

/** The path in an update mask and the field of the spec, for each given value. */
const fields: { [Name in keyof Given]?: Field<NonNullable<Given[Name]>> } = {
  name: ["name", (name) => ({ name })],
  prompt: ["prompt", (prompt) => ({ prompt })],
  schedule: ["schedule", (schedule) => ({ schedule })],
  zone: ["time_zone", (timeZone) => ({ timeZone })],
  agent: ["agent_id", (agentId) => ({ agentId })],
  agentKind: ["agent_kind", (agentKind) => ({ agentKind })],
  attempts: ["max_attempts", (maxAttempts) => ({ maxAttempts })],
  timeout: ["timeout", (text) => length("timeout", text, "--timeout")],
  catchupWindow: ["catchup_window", (text) => length("catchupWindow", text, "--catchup-window")],
  jitter: ["jitter", (text) => length("jitter", text, "--jitter")],
  cooldown: ["min_cooldown", (text) => length("minCooldown", text, "--cooldown")],
  startDeadline: ["start_deadline", (text) => length("startDeadline", text, "--start-deadline")],
  overlap: ["overlap", (word) => ({ overlap: words.overlapPolicy.value(word, "--overlap") })],
  catchup: ["catchup", (word) => ({ catchup: words.catchupPolicy.value(word, "--catchup") })],
  notify: ["notification", (word) => ({ notification: words.notification.value(word, "--notify") })],
  tell: ["notify", (entries) => ({ notify: filled(entries).map(notifyEntry) })],
  schema: ["extraction_schema", (file) => (file ? { extractionSchema: readSchema(file) } : {})],
  workspace: ["workspace", (workspace) => ({ workspace })],
  runBudget: ["run_budget", (text) => ({ runBudget: parseBudget(text, "--run-budget") })],
  dayBudget: ["day_budget", (text) => ({ dayBudget: parseBudget(text, "--day-budget") })],
  continue: ["continue_mode", (word) => ({ continueMode: words.continueMode.value(word, "--continue") })],
  questions: ["questions", (questions) => ({ questions })],
  after: ["after", (watchers) => ({ after: filled(watchers) })],
  afterCondition: ["after_condition", (afterCondition) => ({ afterCondition })],
  redact: ["redact", (paths) => ({ redact: filled(paths) })],
  device: ["device_id", (deviceId) => ({ deviceId })],
  select: ["selector", (selector) => ({ selector })],
  spread: ["spread", (word) => ({ spread: words.spreadMode.value(word, "--spread") })],
  group: ["group", (group) => (group === "none" ? {} : { group })],
  priority: ["priority", (text) => ({ priority: priorityOf(text) })],
  rate: ["rate_limit", (text) => ({ rateLimit: parseRate(text, "--rate") })],
};

/** The fields from the options, and their names for an update mask. */
export async function specOf(
  clients: Clients,
  options: SpecOptions,
): Promise<{ spec: WatcherSpec; paths: string[] }> {
  const spec = create(WatcherSpecSchema);
  const paths: string[] = [];
  const given = await givenOf(clients, options);
  const set = <Value>(field: Field<Value> | undefined, value: Value | undefined) => {
    if (field === undefined || value === undefined) return;
    const [path, fieldsOf] = field;
    Object.assign(spec, fieldsOf(value));
    paths.push(path);
  };
  const setNamed = <Name extends keyof Given>(name: Name) =>
    set(fields[name] as Field<Given[Name]> | undefined, given[name]);
  for (const name of Object.keys(fields) as (keyof Given)[]) setNamed(name);
  // A watcher has either a device or a selector; setting either clears the other.
  if (given.select && given.device === undefined) paths.push("device_id");
  if (given.device && given.select === undefined) paths.push("selector");
  return { spec, paths };
}

/** A length of time for a field; an empty text leaves the field without a value. */
function length<Name extends keyof WatcherSpec>(
  name: Name,
  text: string,
  option: string,
): Partial<WatcherSpec> {
  return text === "" ? {} : { [name]: durationFromMs(parseLength(text, option)) };
}

/** The entries without empty ones: one empty entry clears a list. */
const filled = (entries: string[]) => entries.filter((entry) => entry !== "");

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
    return readInputText(file);
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
    return fromJson(ValueSchema, parseJson(text));
  } catch (error) {
    const option = options.inputFile === undefined ? "--input" : "--input-file";
    throw new Failure(exitCodes.usage, `${option}: is no JSON: ${(error as Error).message}`);
  }
}
