import { type RawBuilder, sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { labelProblem, labelsMax } from "../../../values/labels.ts";
import type { Db } from "../../pg/database.ts";
import { rehearsable } from "../../pg/dry-run.ts";
import * as events from "../../work/service/events.ts";
import { describe } from "../changes.ts";

/**
 * Adds and removes labels of a device, with the event `device.updated`; returns whether the labels
 * changed. Refuses with `invalid_argument` (fields `add`, `remove`), `not_found`, and
 * `failed_precondition` for too many labels and for a fleet worker.
 */
export function change(
  db: Db,
  options: {
    orgId: string;
    deviceId: string;
    add: readonly string[];
    remove: readonly string[];
    actor: string;
    isDryRun?: boolean;
  },
): Promise<boolean> {
  const { orgId, deviceId } = options;
  requireLabels(options);
  return rehearsable(db, options.isDryRun ?? false, async (tx) => {
    const device = await lockLabelled(tx, options);
    const labels = labelsAfter(device, options);
    if (labels.join(" ") === device.labels.join(" ")) return false;
    await tx
      .updateTable("device")
      .set({ labels })
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .execute();
    const data = describe({ labels: device.labels }, { labels });
    await events.append(tx, orgId, [{ kind: "device.updated", actor: options.actor, deviceId, data }]);
    return true;
  });
}

type Asked = { add: readonly string[]; remove: readonly string[] };
type Labelled = { label: string; labels: string[] };

function requireLabels({ add, remove }: Asked): void {
  for (const [index, label] of add.entries()) {
    const field = `add[${index}]`;
    const problem = labelProblem(label);
    if (problem) refuse("invalid_argument", problem, { field });
    if (remove.includes(label)) {
      refuse("invalid_argument", `${JSON.stringify(label)} is both added and removed`, { field });
    }
  }
  for (const [index, label] of remove.entries()) {
    const problem = labelProblem(label);
    if (problem) refuse("invalid_argument", problem, { field: `remove[${index}]` });
  }
}

async function lockLabelled(
  tx: Db,
  { orgId, deviceId }: { orgId: string; deviceId: string },
): Promise<Labelled> {
  const device = await tx
    .selectFrom("device")
    .select(["labels", "label", "is_worker"])
    .where("org_id", "=", orgId)
    .where("id", "=", deviceId)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!device) refuse("not_found", `there is no device ${deviceId}`);
  if (device.is_worker) {
    refuse(
      "failed_precondition",
      `"${device.label}" is a fleet worker, which takes what is neither pinned nor selected; labels are for devices`,
      { field: "device_id" },
    );
  }
  return device;
}

function labelsAfter(device: Labelled, { add, remove }: Asked): string[] {
  const labels = [...new Set([...device.labels, ...add])].filter((label) => !remove.includes(label)).sort();
  if (labels.length > labelsMax) {
    refuse(
      "failed_precondition",
      `device "${device.label}" would have ${labels.length} labels, and may have ${labelsMax}; remove some`,
      { field: "add" },
    );
  }
  return labels;
}

/**
 * Whether the device `d` has a label, given by people or derived from its columns as in labels.ts.
 */
export function hasLabel(label: string): RawBuilder<boolean> {
  const [, kind, name] = /^(has|workspace):(.*)$/s.exec(label) ?? [];
  if (!kind) return sql<boolean>`${label} = any(d.labels)`;
  const isUsable = sql`coalesce(e->>'problem', '') = ''`;
  return kind === "has"
    ? sql<boolean>`${name} = any(d.agent_kinds) and not exists (
        select from jsonb_array_elements(d.executors) e where e->>'kind' = ${name} and not ${isUsable})`
    : sql<boolean>`exists (select from jsonb_array_elements(d.workspaces) e where e->>'name' = ${name} and ${isUsable})`;
}
