import { type RawBuilder, sql } from "kysely";

/**
 * The names in a watcher that only its device can provide, and the device's own offers at its last
 * connect.
 */
export type DeviceOffers = {
  agentKind: string;
  /** The watcher's, or its agent's default; empty: neither names one. */
  workspace: string;
  label: string;
  /** Empty: the device has never announced its kinds. */
  kinds: string[];
  /** Whether the device announces its executors, and with them its workspaces. */
  tells: boolean;
  workspaces: string[];
};

/** The workspace of the watcher `w`: its own, or its agent's default; null: none. */
export const workspaceOfWatcher: RawBuilder<string | null> = sql`
  coalesce(w.workspace, (select nullif(v.settings->>'workspace', '')
    from agent a join agent_revision v on v.org_id = a.org_id and v.agent_id = a.id and v.version = a.version
    where a.org_id = w.org_id and a.id = w.agent_id))`;

const offersBy = (workspace: RawBuilder<string | null>): RawBuilder<DeviceOffers | null> => sql`
  case when w.device_id is not null and (w.agent_kind <> '' or ${workspace} is not null) then (
    select jsonb_build_object('agentKind', w.agent_kind, 'workspace', coalesce(${workspace}, ''), 'label', d.label,
      'kinds', to_jsonb(d.agent_kinds), 'tells', d.executors <> '[]'::jsonb,
      'workspaces', jsonb_path_query_array(d.workspaces, '$[*].name'))
    from device d where d.org_id = w.org_id and d.id = w.device_id
  ) end`;

/**
 * {@link DeviceOffers} of the watcher `w`; null for a watcher that names nothing of its device, as
 * most do.
 */
export const offersOfWatcher = offersBy(workspaceOfWatcher);

/** The same, for a statement that has joined the current revision `v` of the watcher's agent. */
export const offersByRevision = offersBy(sql`coalesce(w.workspace, nullif(v.settings->>'workspace', ''))`);

/**
 * The reason, for people, why a watcher's device cannot run it; undefined if the device can, or if
 * unknown.
 */
export function lackOf(offers: DeviceOffers | null): string | undefined {
  if (offers === null) return undefined;
  const { agentKind, kinds, workspace, workspaces, label, tells } = offers;
  const has = (names: readonly string[]) =>
    names.length === 0 ? "it has none" : `it has ${names.join(", ")}`;
  if (agentKind !== "" && kinds.length > 0 && !kinds.includes(agentKind)) {
    return `device "${label}" has no executor "${agentKind}" (${has(kinds)}); add [executors.${agentKind}] to its device.toml`;
  }
  if (workspace !== "" && tells && !workspaces.includes(workspace)) {
    return `device "${label}" has no workspace "${workspace}" (${has(workspaces)}); add [workspaces.${workspace}] to its device.toml`;
  }
  return undefined;
}
