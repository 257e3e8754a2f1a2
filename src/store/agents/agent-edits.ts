import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import { describe } from "../people/changes.ts";
import * as pins from "../people/devices/pins.ts";
import * as members from "../people/orgs/members.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Json } from "../pg/schema/schema-columns.ts";
import * as events from "../work/service/events.ts";
import { type Agent, get, lock, type Named, requireDevice, requireOwner } from "./agents.ts";

/** The settings of an agent chosen by people. */
export type AgentValues = {
  name: string;
  ownerId: string | null;
  isDefault: boolean;
  deviceId: string | null;
  /** Unchanged, or empty after a decision about the pin. */
  noExecutorReason: string;
  settings: Json;
};

/**
 * Changes an agent, with the event `agent.updated`. `change` receives the agent and returns its new
 * values. A changed name or setting makes a new revision; without a change nothing is written.
 * Refuses with `not_found` (agent, owner, device), `aborted` (`expectedVersion`) and
 * `failed_precondition` (the default must be some agent, the device's owner a member).
 */
export function update(
  db: Db,
  options: Named & {
    actor: string;
    /** 0: any version. */
    expectedVersion: number;
    change: (current: Agent) => AgentValues;
    isDryRun: boolean;
  },
): Promise<{ agent: Agent; changed: string[] }> {
  const { orgId, agentId } = options;
  return transaction(db, async (tx) => {
    await holdNamed(tx, options);
    await lock(tx, options);
    const current = await get(tx, options);
    if (options.expectedVersion !== 0 && options.expectedVersion !== current.version) {
      refuse(
        "aborted",
        `the agent is at version ${current.version}, not ${options.expectedVersion}; read it again`,
        { retryAfterMs: 0 },
      );
    }
    const values = options.change(current);
    const { revised, changed, changes } = changesOf(current, values);
    if (changed.includes("owner_id")) await requireOwner(tx, { orgId, ownerId: values.ownerId });
    if (changed.includes("device_id")) await requireDevice(tx, { orgId, deviceId: values.deviceId });
    if (current.isDefault && !values.isDefault) {
      refuse("failed_precondition", "an org keeps a default agent; make another one the default instead", {
        field: "is_default",
      });
    }
    if (changed.length === 0) return { agent: current, changed };
    const version = current.version + (revised ? 1 : 0);
    if (options.isDryRun) return { agent: { ...current, ...values, version }, changed };
    await write(tx, options, { values, version, revised });
    if (changed.includes("is_default")) {
      await tx.updateTable("org").set({ default_agent_id: agentId }).where("id", "=", orgId).execute();
    }
    const agent = await get(tx, options);
    await events.append(tx, orgId, [
      { kind: "agent.updated", actor: options.actor, data: { agent_id: agentId, version, changed, changes } },
    ]);
    return { agent, changed };
  });
}

/**
 * Locks the new owner and the new device before the agent: removals of members and devices lock the
 * agents last.
 */
async function holdNamed(
  tx: Db,
  { change, ...agent }: Named & { change: (current: Agent) => AgentValues },
): Promise<void> {
  const { orgId } = agent;
  const current = await get(tx, agent);
  const { ownerId, deviceId } = change(current);
  if (ownerId && ownerId !== current.ownerId) await members.hold(tx, { orgId, userId: ownerId });
  if (deviceId && deviceId !== current.deviceId) await pins.hold(tx, { orgId, deviceId });
}

async function write(
  tx: Db,
  { orgId, agentId }: Named,
  { values, version, revised }: { values: AgentValues; version: number; revised: boolean },
): Promise<void> {
  await tx
    .updateTable("agent")
    .set({ name: values.name, owner_id: values.ownerId, device_id: values.deviceId })
    .set({ no_executor_reason: values.noExecutorReason, version, updated_at: sql<Date>`now()` })
    .where("org_id", "=", orgId)
    .where("id", "=", agentId)
    .execute();
  if (!revised) return;
  await tx
    .insertInto("agent_revision")
    .values({
      org_id: orgId,
      agent_id: agentId,
      version,
      name: values.name,
      settings: JSON.stringify(values.settings),
    })
    .execute();
}

/** Fields that runs do not carry: changing them makes no new version. */
const unversioned = new Set(["owner_id", "is_default", "device_id", "no_executor_reason"]);

/** `revised`: a name or a setting is among them. Fields by their names in the API. */
function changesOf(
  current: Agent,
  values: AgentValues,
): { revised: boolean; changed: string[]; changes: Json } {
  const fields = [...new Set([...Object.keys(current.settings), ...Object.keys(values.settings)])].sort();
  const flat = (agent: AgentValues) => ({
    name: agent.name,
    ...Object.fromEntries(fields.map((field) => [snakeCase(field), agent.settings[field]])),
    owner_id: agent.ownerId,
    is_default: agent.isDefault,
    device_id: agent.deviceId,
    no_executor_reason: agent.noExecutorReason,
  });
  const { changed, changes } = describe(flat(current), flat(values));
  return {
    revised: changed.some((field) => !unversioned.has(field)),
    changed,
    changes,
  };
}

/** A field's name in the API. */
function snakeCase(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
