import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";

/** Replicas: a row for each running `pinion serve`. `address`: the replica's port, for people. */
export type Replica = { id: string; address: string };

/** Records a replica's heartbeat. */
export async function beat(db: Db, replica: Replica): Promise<void> {
  await sql`
    insert into replica (id, address) values (${replica.id}, ${replica.address})
    on conflict (id) do update set last_beat_at = now(), address = excluded.address
  `.execute(db);
}

/** Removes a replica that stops normally. Its open sessions end, too. */
export async function remove(db: Db, replicaId: string): Promise<void> {
  await sql`
    with ended as (
      update presence set disconnected_at = now() where replica_id = ${replicaId} and disconnected_at is null
    )
    delete from replica where id = ${replicaId}
  `.execute(db);
}

/**
 * Removes replicas without a heartbeat for `ageMs` milliseconds; reapers treat their sessions as
 * broken already.
 */
export async function removeDead(db: Db, ageMs: number): Promise<void> {
  await sql`delete from replica where last_beat_at < now() - ${ageMs} * interval '1 ms'`.execute(db);
}
