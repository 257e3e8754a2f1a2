import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { create, type JsonObject } from "@bufbuild/protobuf";
import { AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import { CreateHookRequestSchema } from "#gen/pinion/v1/hook_pb.js";
import { WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import { deliveryNames, requireExpression } from "../../../cel/expression.ts";
import { codeOf, Refusal } from "../../../errors.ts";
import { checkSchedule } from "../../../scheduler/schedule/schedule.ts";
import { checkWholeMessage } from "../../../server/access/interceptors/validate.ts";
import { hasUrlPassword, isSecretKey, isSettingKey } from "../../../server/platforms/kinds.ts";
import { placementOf } from "../../../server/rpc/messages/placement-message.ts";
import { isUuid } from "../../../values/ids.ts";
import { labelProblem } from "../../../values/labels.ts";
import { type AgentFields, fieldsOfAgentTree, settingsOfFields } from "../fields/agent-fields.ts";
import {
  type DestinationFields,
  destinationProblems,
  fieldsOfDestinationTree,
} from "../fields/destination-fields.ts";
import { fieldsOfHookTree, type HookFields, specOfHook } from "../fields/hook-fields.ts";
import {
  fieldsOfTree,
  keysOfSchedule,
  specOfFields,
  type WatcherFields,
  watcherDefaults,
} from "../fields/watcher-fields.ts";
import type { ParsedFile } from "./file.ts";
import type { KeyPath } from "./places.ts";
import { placeKey } from "./places.ts";
import { isBelow, type Problem } from "./problems.ts";
import type { AgentTree, PlatformTree, WatcherTree } from "./shape.ts";
import { isTable } from "./variables.ts";

export type DesiredDestination = { slug: string; path: KeyPath; fields: DestinationFields };

/** `secret` is the file's text after substitution; undefined: the file names none. */
export type DesiredHook = { slug: string; path: KeyPath; fields: HookFields; secret?: string };

/** `name` is the file's text; `device` is the id after the look-up. Labels are sorted. */
export type DesiredDevice = { name: string; path: KeyPath; device: string; labels: string[] };

export type DesiredAgent = { id: string; path: KeyPath; fields: Partial<AgentFields> };

export type DesiredPlatform = {
  id: string;
  path: KeyPath;
  agent: string;
  kind: string;
  config: Record<string, string>;
  secrets: Record<string, string>;
};

/** `fields.device` is the file's text: a label or an id. */
export type DesiredWatcher = { slug: string; path: KeyPath; fields: WatcherFields };

/**
 * The state described by the file. All ids are unique, and all rules checkable without a server
 * hold.
 */
export type Desired = {
  agents: DesiredAgent[];
  platforms: DesiredPlatform[];
  watchers: DesiredWatcher[];
  destinations: DesiredDestination[];
  hooks: DesiredHook[];
  devices: DesiredDevice[];
};

/** Throws a Failure with every remaining problem of the file. */
export function desiredOf(parsed: ParsedFile): Desired {
  const agents = Object.entries(parsed.tree.agents ?? {}).map(([id, tree]) => agentOf(id, tree, parsed));
  const platforms = agents.flatMap((agent) => agent.platforms);
  const watchers = agents.flatMap((agent) => agent.watchers);
  const destinations = Object.entries(parsed.tree.destinations ?? {}).map(([slug, tree]) => ({
    ...{ slug, path: ["destinations", slug], fields: fieldsOfDestinationTree(slug, tree) },
  }));
  const hooks = Object.entries(parsed.tree.hooks ?? {}).map(([slug, tree]): DesiredHook => {
    const { secret } = tree;
    const hook = { slug, path: ["hooks", slug], fields: fieldsOfHookTree(tree) };
    return secret === undefined ? hook : { ...hook, secret };
  });
  const devices = Object.entries(parsed.tree.devices ?? {}).map(([name, { labels }]) => {
    return { name, path: ["devices", name], device: name, labels: [...new Set(labels)].sort() };
  });
  const problems: Problem[] = [
    ...agents.flatMap((agent) => agent.problems),
    ...Object.entries(parsed.tree.destinations ?? {}).flatMap(([slug, tree]) =>
      destinationProblems(["destinations", slug], tree),
    ),
    ...hooks.flatMap((hook) => hookProblems(hook)),
    ...Object.entries(parsed.tree.devices ?? {}).flatMap(([name, { labels }]) => labelProblems(name, labels)),
    ...repeated(
      platforms.map(({ id, path }) => ({ name: id, path: [...path, "id"] })),
      "platform",
    ),
    ...repeated(
      watchers.map(({ slug, path }) => ({ name: slug, path: [...path, "slug"] })),
      "watcher",
    ),
  ];
  const { missing, flaws } = parsed;
  // A value already reported as missing is not reported a second time.
  const gaps = new Set([...missing, ...flaws].map(({ path }) => placeKey(path)));
  const further = problems.filter(({ path }) => !isBelow(path, gaps));
  if (flaws.length + further.length > 0) throw parsed.fail([...missing, ...flaws, ...further]);
  return { agents: agents.map(({ agent }) => agent), platforms, watchers, destinations, hooks, devices };
}

/** An agent of the file with its platforms and watchers, and their problems. */
function agentOf(id: string, tree: AgentTree, parsed: ParsedFile) {
  const path = ["agents", id];
  const agent: DesiredAgent = { id, path, fields: fieldsOfAgentTree(tree) };
  const platforms = (tree.platforms ?? []).map((platform, index) =>
    desiredPlatform(id, platform, [...path, "platforms", index], parsed.templates),
  );
  const watchers: DesiredWatcher[] = [];
  const problems = [...agentProblems(agent), ...platforms.flatMap((platform) => platformProblems(platform))];
  for (const [index, watcher] of (tree.watchers ?? []).entries()) {
    const place = [...path, "watchers", index];
    const found = desiredWatcher(id, watcher, place, parsed.file);
    problems.push(...scheduleProblems(watcher, place));
    if ("message" in found) problems.push(found);
    else {
      watchers.push(found);
      problems.push(...watcherProblems(found));
    }
  }
  return { agent, platforms, watchers, problems };
}

function labelProblems(device: string, labels: readonly string[]): Problem[] {
  return labels.flatMap((label, index) => {
    const message = labelProblem(label);
    return message === undefined ? [] : [{ path: ["devices", device, "labels", index], message }];
  });
}

/**
 * Separates secrets from settings by the kind's keys. For unknown keys, a value with a variable or
 * with a reference to a secret on the server counts as a secret: encrypting too much is safer.
 */
function desiredPlatform(
  agent: string,
  tree: PlatformTree,
  path: KeyPath,
  templates: ReadonlyMap<string, string>,
): DesiredPlatform {
  const config: Record<string, string> = {};
  const secrets: Record<string, string> = {};
  for (const [key, value] of Object.entries(tree.config ?? {})) {
    const text = String(value);
    const hasVariable = templates.has(placeKey([...path, "config", key]));
    const isSetting = isSettingKey(tree.kind, key);
    const isSecret =
      isSecretKey(tree.kind, key) || text.startsWith("secret://") || (hasVariable && !isSetting);
    (isSecret ? secrets : config)[key] = text;
  }
  return { id: tree.id, path, agent, kind: tree.kind, config, secrets };
}

function platformProblems({ path, config }: DesiredPlatform): Problem[] {
  return Object.entries(config)
    .filter(([, value]) => hasUrlPassword(value))
    .map(([key]) => ({
      path: [...path, "config", key],
      message: 'holds a URL with a password, and settings are listed; take it out, or write "secret://NAME"',
    }));
}

/** Maximum size of a prompt file in bytes (256 KiB). */
const promptBytesMax = 262_144;

/** The prompt, or the content of the prompt file, relative to the folder of the description. */
function promptOf(tree: WatcherTree, path: KeyPath, file: string): string | Problem {
  const { prompt, prompt_file: promptFile } = tree;
  if (promptFile === undefined) return prompt ?? { path: [...path, "prompt"], message: "is missing" };
  const at = [...path, "prompt_file"];
  if (prompt !== undefined) return { path: at, message: 'excludes "prompt": a watcher has one' };
  const place = resolve(dirname(file), promptFile);
  try {
    const text = readFileSync(place, "utf8");
    if (text.trim() === "") return { path: at, message: `${promptFile} is empty` };
    if (Buffer.byteLength(text) > promptBytesMax)
      return { path: at, message: `${promptFile} is larger than 256 KiB` };
    return text;
  } catch (error) {
    const isMissing = codeOf(error) === "ENOENT";
    return { path: at, message: isMissing ? `there is no file ${place}` : (error as Error).message };
  }
}

function desiredWatcher(
  agent: string,
  tree: WatcherTree,
  path: KeyPath,
  file: string,
): DesiredWatcher | Problem {
  let extractionSchema: JsonObject | null = null;
  if (typeof tree.extraction_schema === "string") {
    try {
      const value: unknown = JSON.parse(tree.extraction_schema);
      if (!isTable(value)) throw new Error("no object");
      extractionSchema = value as JsonObject;
    } catch {
      return { path: [...path, "extraction_schema"], message: "holds no JSON object" };
    }
  } else if (tree.extraction_schema) extractionSchema = tree.extraction_schema as JsonObject;
  const prompt = promptOf(tree, path, file);
  if (typeof prompt !== "string") return prompt;
  const fields = fieldsOfTree(tree, { prompt, agent, device: tree.device ?? "", extractionSchema });
  return { slug: tree.slug, path, fields };
}

/** Problems of a hook that can be found without a server. */
function hookProblems(hook: DesiredHook): Problem[] {
  const { slug, secret = "", fields } = hook;
  const request = create(CreateHookRequestSchema, { slug, secret, spec: specOfHook(fields) });
  const keys: Record<string, string> = { watcher_id: "watcher", is_disabled: "disabled" };
  const broken = checkWholeMessage(CreateHookRequestSchema, request).map(({ field, message }) => {
    const key = field.replace(/^spec\./, "");
    const text = message.replace(/^spec\.\w+: /, "");
    // The rule of secrets is a pattern; a message with the pattern explains nothing.
    return {
      path: [...hook.path, keys[key] ?? key],
      message: key === "secret" ? "must be 16 to 200 printable characters, or secret://NAME" : text,
    };
  });
  const expressions = (["filter", "mapping"] as const).flatMap((key) => {
    try {
      requireExpression(hook.fields[key], deliveryNames, key);
      return [];
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return [{ path: [...hook.path, key], message: error.message.replace(/^\w+: /, "") }];
    }
  });
  return [...broken, ...expressions];
}

function agentProblems(agent: DesiredAgent): Problem[] {
  const settings = settingsOfFields(agent.fields);
  const broken = checkWholeMessage(AgentSettingsSchema, settings);
  const servers = agent.fields.mcp_servers ?? [];
  const twice = servers.flatMap(({ name }, index) =>
    servers.findIndex((other) => other.name === name) < index ? [{ name, index }] : [],
  );
  return [
    ...broken.map(({ field, message }) => ({ path: [...agent.path, ...fieldPath(field)], message })),
    ...(Buffer.byteLength(agent.fields.name ?? "") > agentNameBytesMax
      ? [{ path: [...agent.path, "name"], message: `must be at most ${agentNameBytesMax} bytes` }]
      : []),
    ...twice.slice(0, 1).map(({ name, index }) => ({
      path: [...agent.path, "mcp_servers", index, "name"],
      message: `there is an MCP server "${name}" already`,
    })),
  ];
}

/** Bound of CreateAgentRequest, in bytes. */
const agentNameBytesMax = 200;

/** A watcher has at most one of `schedule`, `at` and `every`; `anchor` needs `every`. */
function scheduleProblems(tree: WatcherTree, path: KeyPath): Problem[] {
  const [first, second] = (["schedule", "at", "every"] as const).filter((key) => tree[key] !== undefined);
  if (second !== undefined) {
    return [{ path: [...path, second], message: `excludes "${first}": a watcher has one schedule` }];
  }
  if (tree.anchor === undefined || tree.every !== undefined) return [];
  return [{ path: [...path, "anchor"], message: 'belongs to "every", which is not there' }];
}

function watcherProblems({ slug, fields, path }: DesiredWatcher): Problem[] {
  if (isUuid(slug)) return [{ path: [...path, "slug"], message: "must not look like an id (a UUID)" }];
  // A label is not an id; the device is looked up later.
  const broken = checkWholeMessage(WatcherSpecSchema, specOfFields({ ...fields, device: "" }));
  const problems: Problem[] = broken.map(({ field, message }) => ({
    path: [...path, ...fieldPath(field)],
    message,
  }));
  problems.push(...placementProblems(fields, path));
  try {
    // The time zone is checked even without a schedule.
    checkSchedule({ schedule: fields.schedule || "@daily", timeZone: fields.time_zone });
    return problems;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const [key = "schedule"] =
      error.field === "spec.time_zone" ? ["time_zone"] : Object.keys(keysOfSchedule(fields.schedule));
    return [...problems, { path: [...path, key], message: error.message }];
  }
}

/** Problems of selectors, groups and priorities, by the server's rules, with the line. */
function placementProblems(fields: WatcherFields, path: KeyPath): Problem[] {
  const { group, max, per } = fields;
  if (group === "" && (max !== watcherDefaults.max || per !== watcherDefaults.per)) {
    const key = max === watcherDefaults.max ? "per" : "max";
    return [{ path: [...path, key], message: 'belongs to "group", which is not there' }];
  }
  try {
    placementOf(specOfFields(fields));
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const key = error.field?.replace(/^spec\./, "") ?? "selector";
    return [
      {
        path: [...path, key === "rate_limit" ? "rate" : key],
        message: error.message.replace(/^spec\.\w+: /, ""),
      },
    ];
  }
}

/**
 * Parses "mcp_servers[1].url" to a path. The first part gives the problem's line; the rest is best
 * effort.
 */
function fieldPath(field: string): KeyPath {
  return [...field.matchAll(/([a-z_]+)|\[(\d+)\]/g)].map(([, name, index]) => name ?? Number(index));
}

function repeated(named: { name: string; path: KeyPath }[], noun: string): Problem[] {
  const seen = new Set<string>();
  return named.flatMap(({ name, path }) => {
    const isRepeated = seen.has(name);
    seen.add(name);
    return isRepeated ? [{ path, message: `there is a ${noun} "${name}" in this file already` }] : [];
  });
}
