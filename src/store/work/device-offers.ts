import { type RawBuilder, sql } from "kysely";

/**
 * The names in a watcher that only its device can provide, and the device's own offers at its last
 * connect.
 */
export type DeviceOffers = {
  agentKind: string;
  /** Empty: the watcher names none. */
  workspace: string;
  label: string;
  /** Empty: the device has never announced its kinds. */
  kinds: string[];
  /** Whether the device announces its executors, and with them its workspaces. */
  tells: boolean;
  workspaces: string[];
};

/**
 * {@link DeviceOffers} of the watcher `w`; null for a watcher that names nothing of its device, as
 * most do.
 */
export const offersOfWatcher: RawBuilder<DeviceOffers | null> = sql`
  case when w.agent_kind <> '' or w.workspace is not null then (
    select jsonb_build_object('agentKind', w.agent_kind, 'workspace', coalesce(w.workspace, ''), 'label', d.label,
      'kinds', to_jsonb(d.agent_kinds), 'tells', d.executors <> '[]'::jsonb,
      'workspaces', jsonb_path_query_array(d.workspaces, '$[*].name'))
    from device d where d.org_id = w.org_id and d.id = w.device_id
  ) end`;

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
