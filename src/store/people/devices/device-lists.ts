import { type RawBuilder, sql } from "kysely";
import { matches } from "../../../cel/selector.ts";
import { factsOf } from "../../../values/labels.ts";
import type { Db } from "../../pg/database.ts";
import { hasLabel } from "./device-labels.ts";
import { type Device, type Liveness, livenessOf, type Os, selectDevices } from "./devices.ts";

/**
 * The org's devices by label, at most `limit`; after `after`, and matching the filters, each if
 * given.
 */
type DevicesWanted = {
  orgId: string;
  ttlMs: number;
  limit: number;
  after?: { label: string; id: string } | undefined;
  isWorker?: boolean | undefined;
  liveness?: readonly Liveness[];
  /** A part of the label, in any case. */
  labelContains?: string;
  operatingSystems?: readonly Os[];
  /** Devices with all of the labels, given or reported. */
  labels?: readonly string[];
};

/** The devices that are wanted; of `ids` alone, if they are given. */
export function list(db: Db, wanted: DevicesWanted & { ids?: readonly string[] }): Promise<Device[]> {
  const where = conditionsOf(wanted);
  if (wanted.ids) where.push(sql`d.id = any(${wanted.ids as string[]}::uuid[])`);
  return selectDevices(db, wanted.ttlMs)
    .where(sql<boolean>`${sql.join(where, sql` and `)}`)
    .orderBy("d.label")
    .orderBy("d.id")
    .limit(wanted.limit)
    .execute();
}

/** For a device `d` with its presence `p`. */
function conditionsOf(wanted: DevicesWanted): RawBuilder<unknown>[] {
  const { after, liveness = [], labelContains = "", operatingSystems = [], labels = [] } = wanted;
  const where = [sql`d.org_id = ${wanted.orgId}`];
  if (after) where.push(sql`(d.label, d.id) > (${after.label}, ${after.id}::uuid)`);
  if (wanted.isWorker !== undefined) where.push(sql`d.is_worker = ${wanted.isWorker}`);
  // An org has some thousand devices: the filter reads all of them, because an index would cost
  // more than it saves.
  if (liveness.length > 0) {
    where.push(sql`${livenessOf(wanted.ttlMs)} = any(${liveness as Liveness[]}::text[])`);
  }
  if (labelContains !== "") where.push(sql`position(lower(${labelContains}) in lower(d.label)) > 0`);
  if (operatingSystems.length > 0) where.push(sql`d.os = any(${operatingSystems as Os[]}::text[])`);
  return [...where, ...labels.map(hasLabel)];
}

/** Devices for each that is wanted, among which a page of a selector that matches many is found. */
const readForOne = 5;
const readFirstMax = 500;

/**
 * Like `list`, only with devices that match the selector. SQL cannot decide that: the selector is
 * asked about the first devices, and if they are too few, once for each kind of the rest, since
 * devices with the same facts are many.
 */
export async function listMatching(db: Db, selector: string, wanted: DevicesWanted): Promise<Device[]> {
  const isMatch = (device: Device) => matches(selector, factsOf(device));
  const readFirst = Math.min(readFirstMax, wanted.limit * readForOne);
  const first = await list(db, { ...wanted, limit: readFirst });
  const found = first.filter(isMatch).slice(0, wanted.limit);
  const last = first.at(-1);
  if (!last || first.length < readFirst || found.length === wanted.limit) return found;
  const rest = { ...wanted, after: { label: last.label, id: last.id }, limit: wanted.limit - found.length };
  const ids = await findMatching(db, selector, rest);
  if (ids.length === 0) return found;
  // A device may have changed in between.
  return [...found, ...(await list(db, { ...rest, ids })).filter(isMatch)];
}

async function findMatching(db: Db, selector: string, wanted: DevicesWanted): Promise<string[]> {
  const { rows } = await sql<Parameters<typeof factsOf>[0] & { arch: string; ids: string[] }>`
    select d.os, coalesce(d.machine->>'arch', '') as arch, d.executors, d.agent_kinds, d.workspaces, d.labels,
      array_agg(d.id) as ids
    from device d left join presence p on p.org_id = d.org_id and p.device_id = d.id
    where ${sql.join(conditionsOf(wanted), sql` and `)}
    group by 1, 2, 3, 4, 5, 6`.execute(db);
  return rows.flatMap(({ arch, ids, ...of }) =>
    matches(selector, factsOf({ ...of, machine: { arch } })) ? ids : [],
  );
}
