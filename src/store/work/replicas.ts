import { sql } from "kysely";
import type { Db } from "../pg/database.ts";

/** Replicas: one row for each `pinion serve` that beats. `address` is for people: where its port is. */
export type Replica = { id: string; address: string };

/** Records that a replica lives. */
export async function beat(db: Db, replica: Replica): Promise<void> {
  await sql`
    insert into replica (id, address) values (${replica.id}, ${replica.address})
    on conflict (id) do update set last_beat_at = now(), address = excluded.address
  `.execute(db);
}

/** Takes a replica off the list: it stops in an orderly way. Its open sessions end with it. */
export async function remove(db: Db, replicaId: string): Promise<void> {
  await sql`
    with ended as (
      update presence set disconnected_at = now() where replica_id = ${replicaId} and disconnected_at is null
    )
    delete from replica where id = ${replicaId}
  `.execute(db);
}

/** Forgets replicas that have not beaten for `ageMs`; reapers judge their sessions as broken already. */
export async function removeDead(db: Db, ageMs: number): Promise<void> {
  await sql`delete from replica where last_beat_at < now() - ${ageMs} * interval '1 ms'`.execute(db);
}
