import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import { canonical } from "../../pg/values/canonical.ts";
import { storableJson } from "../../pg/values/storable.ts";
import * as events from "../../work/service/events.ts";
import { describe } from "../changes.ts";
import type { Known } from "./devices.ts";

/** A hello's facts about its device. An empty label keeps the stored label. */
export type HelloFacts = {
  appVersion: string;
  label: string;
  agentKinds: readonly string[];
  capabilities: readonly string[];
  maxConcurrency: number;
  /** JSON of ExecutorInfo and of WorkspaceInfo. */
  executors: readonly Json[];
  workspaces: readonly Json[];
  /** The problem of the device's configuration file; empty: none. */
  configProblem: string;
  /** JSON of UpgradeInfo; null: not said. */
  upgrade: Json | null;
};

/**
 * Stores the changed facts of a hello in the device, as just read, with the event `device.updated`.
 * A hello without changes costs nothing. True if the device changed.
 */
export async function updateFromHello(db: Db, before: Known, facts: HelloFacts): Promise<boolean> {
  if (changesOf(before, facts).length === 0) return false;
  const { org_id: orgId, id: deviceId } = before;
  return transaction(db, async (tx) => {
    const current = await tx
      .selectFrom("device")
      .selectAll()
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .forNoKeyUpdate()
      .executeTakeFirst();
    const changes = current ? changesOf(current, facts) : [];
    if (changes.length === 0) return false;
    await tx
      .updateTable("device")
      .set(columnsOfChanges(changes))
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .execute();
    await events.append(tx, orgId, [changedEvent(deviceId, changes)]);
    return true;
  });
}

export type Change = { column: string; from: unknown; to: unknown };

const jsonColumns = new Set(["executors", "workspaces", "upgrade"]);

/** The columns changed by a hello. */
export function columnsOfChanges(changes: readonly Change[]): Record<string, unknown> {
  return Object.fromEntries(
    changes.map(({ column, to }) => [column, jsonColumns.has(column) && to !== null ? storableJson(to) : to]),
  );
}

/** The event of a hello's changes. */
export function changedEvent(deviceId: string, changes: readonly Change[]): Omit<events.NewEvent, "orgId"> {
  return {
    kind: "device.updated",
    actor: `device:${deviceId}`,
    deviceId,
    data: describe(
      Object.fromEntries(changes.map(({ column, from }) => [column, from])),
      Object.fromEntries(changes.map(({ column, to }) => [column, to])),
    ),
  };
}

/** Whether a hello's facts change the device. */
export const hasChanges = (device: Known, facts: HelloFacts) => changesOf(device, facts).length > 0;

/** The changes in a hello's facts. */
export function changesOf(device: Known, facts: HelloFacts): Change[] {
  const changes: Change[] = [
    { column: "app_version", from: device.app_version, to: facts.appVersion },
    { column: "label", from: device.label, to: facts.label === "" ? device.label : facts.label },
    { column: "agent_kinds", from: device.agent_kinds, to: [...facts.agentKinds] },
    { column: "capabilities", from: device.capabilities, to: [...facts.capabilities] },
    { column: "max_concurrency", from: device.max_concurrency, to: facts.maxConcurrency },
    { column: "executors", from: device.executors, to: [...facts.executors] },
    { column: "workspaces", from: device.workspaces, to: [...facts.workspaces] },
    { column: "config_problem", from: device.config_problem, to: facts.configProblem },
    { column: "upgrade", from: device.upgrade, to: facts.upgrade },
  ];
  return changes.filter(({ from, to }) => canonical(from) !== canonical(to));
}
