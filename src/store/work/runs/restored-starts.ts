/**
 * Starts whose runs came back from their devices after a failover, while the database had forgotten
 * who asked for them: a delivery to a hook, a request with an id, the end of another run. A sender
 * that repeats the start finds the run by its name ({@link nameOfRun}), for as long as the answers
 * to repeated requests (requests.ts).
 */
import { type RawBuilder, sql } from "kysely";
import { nameOfRun, spreadRunId } from "../../../values/ids.ts";
import { findMade, restoredStarts } from "../../people/requests.ts";
import type { Db } from "../../pg/database.ts";
import { unnest } from "../../pg/values/unnest.ts";

type Start = { orgId: string; runId: string };

/** The place of runs of a start on every device: each is one device's, so the start is not done. */
const spreadRpc = "restored spread start";

/** Notes a restored run under the name of the start. */
export function note(tx: Db, { orgId, runId }: Start, forgottenId: string): Promise<void> {
  return put(tx, { orgId, runId, rpc: restoredStarts.rpc, id: nameOfRun(forgottenId) });
}

/**
 * Notes that a device has a restored run of a start on every device, under the device's name for
 * it.
 */
export function noteOnDevice(
  tx: Db,
  { orgId, runId, deviceId }: Start & { deviceId: string },
  forgottenId: string,
): Promise<void> {
  return put(tx, { orgId, runId, rpc: spreadRpc, id: `${nameOfRun(forgottenId)} ${deviceId}` });
}

async function put(tx: Db, { orgId, runId, rpc, id }: Start & { rpc: string; id: string }): Promise<void> {
  await sql`
    insert into request (org_id, actor, rpc, id, made)
    values (${orgId}, ${restoredStarts.actor}, ${rpc}, ${id},
      jsonb_build_object('run_id', ${runId}::text, 'already_queued', false))
    on conflict (org_id, actor, rpc, id) do update set made = excluded.made, created_at = now()
  `.execute(tx);
}

/** The restored run with the same name in its id; undefined for none. */
export async function find(tx: Db, start: Start): Promise<string | undefined> {
  const requestId = nameOfRun(start.runId);
  const made = await findMade(tx, { orgId: start.orgId, ...restoredStarts, requestId });
  return made?.run_id as string | undefined;
}

/**
 * Those of the devices that have run their share of a start on every device: the database forgot
 * the spreading, and the share came back. A device's share has the run's own name (the first
 * device's) or the name of the device's copy.
 */
export async function listDone(
  tx: Db,
  { orgId, runId, deviceIds }: Start & { deviceIds: readonly string[] },
): Promise<Set<string>> {
  const shares = deviceIds.map((deviceId) => {
    const copyId = spreadRunId({ runId, deviceId });
    return {
      deviceId,
      copyId,
      names: [runId, copyId].map((id) => `${nameOfRun(id)} ${deviceId}`) as [string, string],
    };
  });
  const input = unnest("i", shares, {
    device_id: ["uuid", (s) => s.deviceId],
    copy_id: ["uuid", (s) => s.copyId],
    own_name: ["text", (s) => s.names[0]],
    copy_name: ["text", (s) => s.names[1]],
  });
  const { rows } = await sql<{ id: string }>`
    select i.device_id as id from ${input}
    where exists (select from run_finished f where f.org_id = ${orgId} and f.id = i.copy_id)
      or exists (select from request q where q.org_id = ${orgId} and q.actor = ${restoredStarts.actor}
        and q.rpc = ${spreadRpc} and q.id in (i.own_name, i.copy_name))`.execute(tx);
  return new Set(rows.map(({ id }) => id));
}

/** Whether a run's id has the name of one of the ids. */
export const isNamed = (id: RawBuilder<unknown>, runIds: readonly string[]) =>
  sql`right(${id}::text, 16) = any(${runIds.map(nameOfRun)}::text[])`;
