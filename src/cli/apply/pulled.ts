import type { Agent, AgentPlatform } from "#gen/pinion/v1/agent_pb.js";
import type { Destination } from "#gen/pinion/v1/destination_pb.js";
import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import type { Hook } from "#gen/pinion/v1/hook_pb.js";
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { canonical } from "../../store/pg/values/canonical.ts";
import { isUuid } from "../../values/ids.ts";
import { told } from "../failures.ts";
import { agentFieldNames, fieldsOfAgent } from "./fields/agent-fields.ts";
import { fieldsOfDestination } from "./fields/destination-fields.ts";
import { fieldsOfHook, hookDefaults } from "./fields/hook-fields.ts";
import { fieldsOfSpec, keysOfSchedule, type NotifyFields, watcherDefaults } from "./fields/watcher-fields.ts";
import { tomlComment, tomlJson, tomlList, tomlText } from "./file/toml-text.ts";
import { escaped } from "./file/variables.ts";
import type { OrgState } from "./state.ts";

/**
 * The file for an org's state: applying the file to the same org changes nothing. Equal orgs give
 * equal texts. Secrets are placeholders; the result lists their variables.
 */
export function pulledFile(state: OrgState, source: string): { text: string; variables: string[] } {
  const names = new VariableNames();
  const of = <Item>(items: ReadonlyMap<string, Item>, agent: string, agentOf: (item: Item) => string) =>
    sorted(items).filter((item) => agentOf(item) === agent);
  const sections = sorted(state.agents).map((agent) =>
    [
      agentText(agent, state),
      ...of(state.platforms, agent.id, (platform) => platform.agentId).map((platform) =>
        platformText(platform, names),
      ),
      ...of(state.watchers, agent.id, (watcher) => watcher.spec?.agentId ?? "").map((watcher) =>
        watcherText(watcher, state),
      ),
    ].join("\n\n"),
  );
  const destinations = sorted(state.destinations).map((destination) => destinationText(destination, names));
  const orphans = sorted(state.watchers).filter(({ spec }) => !state.agents.has(spec?.agentId ?? ""));
  const head = [
    "#:schema docs/pinion.schema.json",
    tomlComment(`Written by \`pinion pull\` from ${source}. \`pinion apply\` makes an org what it says.`),
    ...(names.all.length === 0
      ? []
      : ["# Secrets stay on the server; before it is applied, these variables must hold them:"]),
    ...names.all.map((name) => `#   ${name}`),
    ...orphans.map(({ slug, spec }) =>
      tomlComment(`Left out: the watcher "${slug}", whose agent "${spec?.agentId}" does not exist.`),
    ),
  ].join("\n");
  const devices = [...state.devices]
    .filter(({ labels }) => labels.length > 0)
    .sort((a, b) => (a.label === b.label ? (a.id < b.id ? -1 : 1) : a.label < b.label ? -1 : 1))
    .map((device) => deviceText(device, state));
  const hooks = sorted(state.hooks).map(hookText);
  return {
    text: `${[head, ...devices, ...destinations, ...sections, ...hooks].join("\n\n")}\n`,
    variables: names.all,
  };
}

function sorted<Item>(items: ReadonlyMap<string, Item>): Item[] {
  return [...items].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, item]) => item);
}

function agentText(agent: Agent, state: OrgState): string {
  const fields = fieldsOfAgent(agent);
  const lines = agentFieldNames.flatMap((name) => {
    const value = fields[name];
    if (name === "device") return fields.device === "" ? [] : [deviceLine(fields.device, state)];
    if (name === "mcp_servers") {
      const servers = fields.mcp_servers.map(
        (server) => `{ name = ${quoted(server.name)}, url = ${quoted(server.url)} }`,
      );
      return servers.length === 0 ? [] : [`${name} = ${tomlList(servers)}`];
    }
    if (typeof value === "string") {
      return value === "" || value === "unrestricted" ? [] : [`${name} = ${quoted(value)}`];
    }
    if (!Array.isArray(value)) {
      return [`${name} = { allowed_hosts = [${value.allowed_hosts.map(quoted).join(", ")}] }`];
    }
    return value.length === 0 ? [] : [`${name} = ${tomlList((value as string[]).map(quoted))}`];
  });
  return [`[agents.${agent.id}]`, ...lines].join("\n");
}

function platformText(platform: AgentPlatform, names: VariableNames): string {
  const config = Object.entries(platform.config).map(
    ([key, value]) => [key, `${key} = ${quoted(value)}`] as const,
  );
  const secrets = platform.secrets.map(({ name, reference }) => {
    if (reference) return [name, `${name} = ${tomlText(reference)}`] as const;
    return [name, `${name} = "$${names.take(platform.stableId, name)}" # a secret`] as const;
  });
  const lines = [...config, ...secrets].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, line]) => line);
  return [
    `[[agents.${platform.agentId}.platforms]]`,
    `id = ${tomlText(platform.stableId)}`,
    `kind = ${tomlText(platform.kind)}`,
    ...(lines.length === 0 ? [] : [`[agents.${platform.agentId}.platforms.config]`, ...lines]),
  ].join("\n");
}

function watcherText(watcher: Watcher, state: OrgState): string {
  const { agent, ...fields } = fieldsOfSpec(told(watcher.spec, "spec"));
  const defaults: Record<string, unknown> = { ...watcherDefaults, name: watcher.slug };
  const lines = Object.entries(fields)
    .filter(([name, value]) => canonical(value) !== canonical(defaults[name]))
    .flatMap(([name, value]): [string, unknown][] =>
      name === "schedule" ? Object.entries(keysOfSchedule(String(value))) : [[name, value]],
    )
    .map(([name, value]) => {
      if (name === "extraction_schema") return `${name} = ${tomlJson(value)}`;
      if (name === "notify") {
        const entries = (value as NotifyFields[]).map(
          ({ to, when }) => `{ to = ${quoted(to)}, when = ${quoted(when)} }`,
        );
        return `${name} = ${tomlList(entries)}`;
      }
      if (name === "device") return deviceLine(String(value), state);
      if (name === "prompt") return `${name} = ${tomlText(String(value))}`;
      if (Array.isArray(value)) return `${name} = ${tomlList((value as string[]).map(quoted))}`;
      return `${name} = ${typeof value === "string" ? quoted(value) : String(value)}`;
    });
  return [`[[agents.${agent}.watchers]]`, `slug = ${tomlText(watcher.slug)}`, ...lines].join("\n");
}

/**
 * A webhook's signing secret is left out: the existing secret stays, and another org gets a new
 * secret.
 */
function destinationText(destination: Destination, names: VariableNames): string {
  const fields = fieldsOfDestination(destination);
  const secrets = Object.entries(fields.secrets).flatMap(([name, reference]) => {
    if (reference) return [`${name} = ${tomlText(reference)}`];
    return name === "signing_secret" ? [] : [`${name} = "$${names.take(destination.slug, name)}" # a secret`];
  });
  const line = (name: "name" | "url" | "channel" | "api_url" | "from" | "platform" | "chat", unless = "") =>
    fields[name] === unless ? [] : [`${name} = ${quoted(fields[name])}`];
  return [
    `[destinations.${destination.slug}]`,
    ...line("name", destination.slug),
    `kind = ${tomlText(fields.kind)}`,
    ...line("url"),
    ...line("channel"),
    ...line("api_url"),
    ...line("platform"),
    ...line("chat"),
    ...(fields.to.length === 0 ? [] : [`to = ${tomlList(fields.to.map(quoted))}`]),
    ...line("from"),
    ...secrets,
    ...(fields.takes_alerts ? [] : ["takes_alerts = false"]),
  ].join("\n");
}

/**
 * Labels that people gave a device. Devices join by themselves; the file names devices with labels.
 */
function deviceText(device: Device, state: OrgState): string {
  const isLabel = isNamedByLabel(device, state) && !/\p{Cc}/u.test(device.label);
  const name = isLabel ? device.label : device.id;
  const key = /^[A-Za-z0-9_-]+$/.test(name) ? name : tomlText(name);
  const remark = isLabel || device.label === "" ? "" : ` ${tomlComment(device.label)}`;
  return `[devices.${key}]${remark}\nlabels = ${tomlList(device.labels.map(quoted))}`;
}

/** A hook without its secret: the existing secret stays, and another org gets a new secret. */
function hookText(hook: Hook): string {
  const { watcher, kind, ...fields } = fieldsOfHook(hook);
  const lines = Object.entries(fields)
    .filter(([name, value]) => value !== hookDefaults[name as keyof typeof hookDefaults])
    .map(([name, value]) => `${name} = ${typeof value === "string" ? quoted(value) : String(value)}`);
  return [
    `[hooks.${hook.slug}]`,
    `watcher = ${tomlText(watcher)}`,
    `kind = ${tomlText(kind)}`,
    ...lines,
    ...(hook.secretReference === "" ? [] : [`secret = ${tomlText(hook.secretReference)}`]),
  ].join("\n");
}

/** The device by its label if the label is unique, because people read the file. */
function deviceLine(id: string, state: OrgState): string {
  const device = state.devices.find((one) => one.id === id);
  const label = device?.label ?? "";
  if (device && isNamedByLabel(device, state)) return `device = ${quoted(label)}`;
  return `device = ${tomlText(id)} ${label === "" ? "" : tomlComment(label)}`.trimEnd();
}

function isNamedByLabel({ label }: Device, state: OrgState): boolean {
  const isUnique = state.devices.filter((device) => device.label === label).length === 1;
  return label !== "" && isUnique && !isUuid(label);
}

function quoted(text: string): string {
  return tomlText(escaped(text));
}

/** Unique variable names for secrets: ADA_TELEGRAM_BOT_TOKEN. */
class VariableNames {
  readonly all: string[] = [];

  take(platform: string, key: string): string {
    const plain = `${platform}_${key}`.toUpperCase().replaceAll("-", "_");
    const base = /^[A-Z_]/.test(plain) ? plain : `P_${plain}`;
    let name = base;
    for (let copy = 2; this.all.includes(name); copy++) name = `${base}_${copy}`;
    this.all.push(name);
    return name;
  }
}
