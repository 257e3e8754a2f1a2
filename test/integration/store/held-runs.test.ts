/** The buffers read by a claim do not grow with the number of held runs. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { useDatabase } from "../../support/database.ts";

const database = useDatabase();

/**
 * The buffers read by a claim for runs of one device, and of the fleet; in an org with `held` held
 * runs.
 */
async function buffersRead(held: number): Promise<{ pinned: number; unpinned: number }> {
  const { db } = database;
  const org = `org-${held}`;
  await sql`insert into org (id, name) values (${org}, ${org})`.execute(db);
  const { rows } = await sql<{ id: string }>`select gen_random_uuid() as id`.execute(db);
  const deviceId = rows[0]!.id;
  await sql`
    insert into run (org_id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
      window_start, window_end, due_at, timeout_ms, max_attempts, is_pinned, is_gated, is_held)
    select ${org}, gen_random_uuid(), 1, 'a', 1, case when n % 2 = 0 then ${deviceId}::uuid end, '', 'none', 'manual',
      now() - interval '1 day', now(), now() - interval '1 hour', 1000, 1, n % 2 = 0, true, true
    from generate_series(1, ${held}) n
  `.execute(db);
  await sql`analyze run`.execute(db);
  const explain = async (which: ReturnType<typeof sql>) => {
    const { rows: lines } = await sql<{ "QUERY PLAN": [{ Plan: Record<string, number> }] }>`
      explain (analyze, buffers, format json) select id from run
      where org_id = ${org} and ${which} and not is_held and status = 'pending' and due_at <= now()
      order by due_at limit 4
    `.execute(db);
    const { Plan: plan } = lines[0]!["QUERY PLAN"][0];
    return plan["Shared Hit Blocks"]! + plan["Shared Read Blocks"]!;
  };
  return {
    pinned: await explain(sql`device_id = ${deviceId}::uuid`),
    unpinned: await explain(sql`device_id is null and agent_kind = ''`),
  };
}

test("ten thousand held runs cost a claim nothing", async () => {
  const few = await buffersRead(10);
  const many = await buffersRead(10_000);
  expect(many.pinned).toBeLessThan(few.pinned + 10);
  expect(many.unpinned).toBeLessThan(few.unpinned + 10);
});
