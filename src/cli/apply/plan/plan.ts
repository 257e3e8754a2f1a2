import { type AgentPlatform, PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { isReference } from "../../../secrets.ts";
import { hasUrlPassword, isSecretKey } from "../../../server/platforms/kinds.ts";
import { agentFieldNames, fieldsOfAgent } from "../fields/agent-fields.ts";
import { fieldsOfDestination, openFields } from "../fields/destination-fields.ts";
import { fieldsOfSpec, specPaths, type WatcherFields, watcherDefaults } from "../fields/watcher-fields.ts";
import type {
  Desired,
  DesiredAgent,
  DesiredDestination,
  DesiredPlatform,
  DesiredWatcher,
} from "../file/desired.ts";
import type { OrgState } from "../state.ts";
import { deviceStep } from "./device-plan.ts";
import { driftSteps } from "./drift.ts";
import { hookStep } from "./hook-plan.ts";
import { change, isSame } from "./plan-fields.ts";
import { hiddenText } from "./shown.ts";
import type {
  AgentStep,
  DestinationStep,
  FieldChange,
  Kind,
  Plan,
  PlatformStep,
  Step,
  Verdict,
  WatcherStep,
} from "./steps.ts";

export type PlanOptions = {
  only: ReadonlySet<Kind>;
  prune: boolean;
  templates: ReadonlyMap<string, string>;
};

/** The steps from the org's state to the desired state. Pure. Device ids are already resolved. */
export function makePlan(
  desired: Desired,
  state: OrgState,
  verdicts: ReadonlyMap<string, Verdict>,
  options: PlanOptions,
): Plan {
  const { only, templates } = options;
  const wanted: Step[] = [
    ...(only.has("device") ? desired.devices.map((device) => deviceStep(device, state)) : []),
    ...(only.has("agent") ? desired.agents.map((agent) => agentStep(agent, state, templates)) : []),
    ...(only.has("destination")
      ? desired.destinations.map((destination) => destinationStep(destination, state, verdicts, templates))
      : []),
    ...(only.has("platform")
      ? desired.platforms.map((platform) => platformStep(platform, state, verdicts, templates))
      : []),
    ...(only.has("watcher") ? desired.watchers.map((watcher) => watcherStep(watcher, state, templates)) : []),
    ...(only.has("hook") ? desired.hooks.map((hook) => hookStep(hook, state, verdicts, templates)) : []),
  ];
  const action = options.prune ? "delete" : "drift";
  return { steps: [...wanted, ...driftSteps(desired, state, action).filter(({ kind }) => only.has(kind))] };
}

/** Steps with a write. */
export function work(plan: Plan): Step[] {
  return plan.steps.filter(({ action }) => action !== "noop" && action !== "drift");
}

function agentStep(wanted: DesiredAgent, state: OrgState, templates: ReadonlyMap<string, string>): AgentStep {
  const base = {
    kind: "agent",
    id: wanted.id,
    agent: wanted.id,
    wanted,
    willRestart: false,
    note: "",
  } as const;
  const current = state.agents.get(wanted.id);
  const before = current && fieldsOfAgent(current);
  const changed = agentFieldNames.filter(
    (name) =>
      wanted.fields[name] !== undefined &&
      !isSame(before?.[name], wanted.fields[name]) &&
      // A new agent has no device.
      !(name === "device" && !before && wanted.fields.device === ""),
  );
  const fields = changed.map((field) => {
    const [old, next] = [before?.[field], wanted.fields[field]];
    return field === "device"
      ? { field, before: old && labelOf(state, String(old)), after: labelOf(state, String(next)) }
      : change(field, old, next, [...wanted.path, field], templates);
  });
  const action = !current ? "create" : changed.length > 0 ? "update" : "noop";
  return { ...base, action, changed, fields, version: current?.version ?? 0 };
}

function watcherStep(
  wanted: DesiredWatcher,
  state: OrgState,
  templates: ReadonlyMap<string, string>,
): WatcherStep {
  const current = state.watchers.get(wanted.slug);
  const before = current?.spec && fieldsOfSpec(current.spec);
  const defaults: Partial<WatcherFields> = {
    ...watcherDefaults,
    name: wanted.slug,
    agent: wanted.fields.agent,
  };
  const names = Object.keys(specPaths) as (keyof WatcherFields)[];
  const changed = names.filter((name) => !isSame(before?.[name], wanted.fields[name]));
  const fields = changed
    // Default values of a new watcher are not listed.
    .filter((name) => current || !isSame(wanted.fields[name], defaults[name]))
    .map((field) => {
      const [old, next] = [before?.[field], wanted.fields[field]];
      return field === "device"
        ? { field, before: old && labelOf(state, String(old)), after: labelOf(state, String(next)) }
        : change(field, old, next, [...wanted.path, field], templates);
    });
  return {
    kind: "watcher",
    id: wanted.slug,
    agent: wanted.fields.agent,
    wanted,
    action: !current ? "create" : changed.length > 0 ? "update" : "noop",
    changed,
    fields,
    willRestart: false,
    note: "",
    version: current?.version ?? 0,
  };
}

/**
 * The server decides whether a secret differs (verify.ts), because the server returns no secrets.
 */
function destinationStep(
  wanted: DesiredDestination,
  state: OrgState,
  verdicts: ReadonlyMap<string, Verdict>,
  templates: ReadonlyMap<string, string>,
): DestinationStep {
  const current = state.destinations.get(wanted.slug);
  const before = current && fieldsOfDestination(current);
  const fields = openFields
    .filter((name) => !isSame(before?.[name], wanted.fields[name]))
    .filter(
      (name) =>
        before || !isSame(wanted.fields[name], name === "takes_alerts" ? true : name === "to" ? [] : ""),
    )
    .map((field) => change(field, before?.[field], wanted.fields[field], [...wanted.path, field], templates));
  const outcome = verdicts.get(verdictName(wanted.slug))?.outcome ?? (current ? "noop" : "created");
  const isSecretNew = fields.length === 0 && outcome === "updated";
  return {
    ...{ kind: "destination", id: wanted.slug, agent: "", wanted, willRestart: false, note: "" },
    action: !current ? "create" : outcome === "updated" ? "update" : "noop",
    fields: isSecretNew ? [{ field: "secret", before: hiddenText, after: hiddenText }] : fields,
    version: current?.version ?? 0,
  };
}

/** Key of a destination's verdict; distinct from platform ids, the keys of platforms. */
export const verdictName = (slug: string) => `destination ${slug}`;

function labelOf(state: OrgState, deviceId: string): string {
  return state.devices.find((device) => device.id === deviceId)?.label ?? deviceId;
}

function platformStep(
  wanted: DesiredPlatform,
  state: OrgState,
  verdicts: ReadonlyMap<string, Verdict>,
  templates: ReadonlyMap<string, string>,
): PlatformStep {
  const current = state.platforms.get(wanted.id);
  const verdict = verdicts.get(wanted.id);
  const note = current ? startNote(current) : "";
  const outcome = verdict?.outcome ?? (current ? "updated" : "created");
  // A setting turned into a secret changes both tables of the server, and a single table of the
  // file.
  const changed = new Set(
    (verdict?.changedFields ?? []).map((path) => path.replace(/^secrets\./, "config.")),
  );
  const fields = [...changed].map((field) => platformChange(field, current, wanted, templates));
  return {
    kind: "platform",
    id: wanted.id,
    agent: wanted.agent,
    wanted,
    // Writing an unchanged platform starts a failed platform and waits for a starting platform.
    action: outcome === "created" ? "create" : outcome === "updated" || note !== "" ? "update" : "noop",
    fields,
    willRestart: verdict?.willRestart ?? false,
    note,
    version: current?.version ?? 0,
  };
}

function startNote(current: AgentPlatform): string {
  if (current.status === PlatformStatus.FAILED) {
    return `its start failed (${current.statusReason}); it is started again`;
  }
  return current.status === PlatformStatus.STARTING ? "it is being started; that is waited for" : "";
}

/**
 * The change of "config.chat_id" with its values; of "config.bot_token", a secret, with at most the
 * name of a secret on the server.
 */
function platformChange(
  field: string,
  current: AgentPlatform | undefined,
  wanted: DesiredPlatform,
  templates: ReadonlyMap<string, string>,
): FieldChange {
  if (field === "kind") return change(field, current?.kind, wanted.kind, [...wanted.path, field], templates);
  const [table, key = ""] = field.split(".");
  if (table !== "config") return { field, before: undefined, after: undefined };
  const had = current?.secrets.find(({ name }) => name === key);
  const secret = own(wanted.secrets, key);
  const setting = current && own(current.config, key);
  const isSecret = secret !== undefined || isSecretKey(wanted.kind, key) || hasUrlPassword(setting ?? "");
  const before = had ? had.reference || hiddenText : setting && isSecret ? hiddenText : setting;
  const after =
    secret === undefined || isReference(secret) ? (secret ?? own(wanted.config, key)) : hiddenText;
  // A secret in the file is never shown, not even next to a variable.
  return after === hiddenText
    ? { field, before, after }
    : change(field, before, after, [...wanted.path, "config", key], templates);
}

function own(values: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(values, key) ? values[key] : undefined;
}
