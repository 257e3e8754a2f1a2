/** Old starts are deleted without a look at other runs, and other tables do not keep them. */
import { sql } from "kysely";
import { beforeAll, expect, test } from "vitest";
import type { Db } from "../../../src/store/pg/database.ts";
import { deleteOld } from "../../../src/store/work/service/retention.ts";
import { useDatabase } from "../../support/database.ts";
import { rowsRead } from "../../support/reads.ts";
import { orgId, seedDevice, seedWatcher } from "../../support/rows.ts";

const database = useDatabase({ per: "file" });
const age = { days: 30, conversationDays: 365 };
const many = 20_000;

beforeAll(async () => {
  const { db } = database;
  await seedWatcher(db, await seedDevice(db), {});
  await sql`insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, agent_kind,
      notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt,
      reason, past_attempts, finished_at)
    select ${orgId}, gen_random_uuid(), gen_random_uuid(), 1, 'a', 1, 'test', 'none', 'manual', now(), now(), now(), now(),
      1000, 1, 'completed', 1, '', '[]', now() - i % 20 * interval '1 day'
    from generate_series(1, ${many}::int) i`.execute(db);
  await sql`vacuum analyze run_finished`.execute(db);
});

/** Adds starts of runs that are gone. */
async function addStarts(daysAgo: number, count: number) {
  await sql`insert into run_start (org_id, run_id, watcher_id, actor, created_at)
    select ${orgId}, gen_random_uuid(), gen_random_uuid(), 'pinion', now() - ${daysAgo} * interval '1 day'
    from generate_series(1, ${count}::int)`.execute(database.db);
  await sql`analyze run_start`.execute(database.db);
}

async function countStarts(db: Db): Promise<number> {
  const { rows } = await sql<{ count: number }>`select count(*)::int as count from run_start`.execute(db);
  return rows[0]!.count;
}

test("old starts go in batches, a start of a shown run stays, and no other ended run is read", async () => {
  const { db } = database;
  await addStarts(40, 1_500);
  await sql`insert into run_start (org_id, run_id, watcher_id, actor, created_at)
    (select org_id, id, watcher_id, 'pinion', now() - interval '40 days' from run_finished limit 3)`.execute(
    db,
  );
  const passes: unknown[] = [];
  const read = await rowsRead({ db, tables: "^run_finished" }, async (tx) => {
    for (let pass = 0; pass < 2; pass++) passes.push(await deleteOld(tx, age));
  });
  expect(read).toBeLessThan(100);
  expect(passes).toEqual([
    { deleted: 1_000, isMore: true },
    { deleted: 500, isMore: false },
  ]);
  expect(await countStarts(db)).toBe(3);
  await sql`delete from run_start`.execute(db);
});

test("a table that cannot be cleaned does not keep the tables after it, and is told of", async () => {
  const { db } = database;
  await addStarts(40, 1);
  await sql`insert into slot (org_id, watcher_id, scheduled_for, run_id, created_at)
    values (${orgId}, gen_random_uuid(), now(), gen_random_uuid(), now() - interval '40 days')`.execute(db);
  await sql`create function refuse() returns trigger language plpgsql as $$ begin raise 'no slot is deleted'; end $$`.execute(
    db,
  );
  await sql`create trigger refusing before delete on slot execute function refuse()`.execute(db);
  await expect(deleteOld(db, age)).rejects.toThrow("no slot is deleted");
  expect(await countStarts(db)).toBe(0);
  await sql`drop trigger refusing on slot`.execute(db);
  expect((await deleteOld(db, age)).deleted).toBe(1);
});
