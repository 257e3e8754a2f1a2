/** A few people or schedules among many are read without the others. */
import { sql } from "kysely";
import { beforeAll, expect, test } from "vitest";
import * as rights from "../../../src/store/people/devices/rights.ts";
import type { Db } from "../../../src/store/pg/database.ts";
import { withinOrg } from "../../../src/store/pg/tenancy.ts";
import { listPlanned } from "../../../src/store/work/watchers/positions.ts";
import { useDatabase } from "../../support/database.ts";
import { rowsRead } from "../../support/reads.ts";
import { orgId, seedDevice, seedWatcher } from "../../support/rows.ts";

const database = useDatabase({ per: "file" });
const many = 3_000;

beforeAll(async () => {
  const { db } = database;
  await seedWatcher(db, await seedDevice(db), {});
  await sql`
    with people as (insert into "user" (name) select 'person ' || i from generate_series(1, ${many}::int) i returning id),
      members as (insert into member (org_id, user_id, role) select ${orgId}, id, 'member' from people)
    insert into device (org_id, owner_id, install_id, os, label) select ${orgId}, id, id::text, 'linux', 'box' from people`.execute(
    db,
  );
  await sql`
    with orgs as (insert into org (id, name) select 'org-' || i, 'Org' from generate_series(0, 9) i),
    agents as (insert into agent (org_id, id, name) select 'org-' || i, 'many', 'many' from generate_series(0, 9) i),
    watchers as (
      insert into watcher (org_id, slug, name, agent_id, agent_kind, schedule, overlap)
      select 'org-' || i % 10, 'many-' || i, 'many', 'many', 'test', '0 0 1 1 *', 'skip'
      from generate_series(1, ${many}::int) i returning org_id, id
    )
    insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at)
    select org_id, id, now() + interval '30 days', now() + interval '30 days' from watchers`.execute(db);
  await sql`vacuum analyze "user", member, device, watcher, schedule_position`.execute(db);
});

test("a caller's standing on devices reads the owners of these devices", async () => {
  const { rows } = await sql<{ deviceId: string; ownerId: string }>`
    select id as "deviceId", owner_id as "ownerId" from device where label = 'box' order by id desc limit 20`.execute(
    database.db,
  );
  const who = { userId: null, tokenId: "00000000-0000-0000-0000-000000000000" };
  for (const asked of [rows.slice(0, 1), rows]) {
    const deviceIds = asked.map(({ deviceId }) => deviceId);
    const standings = (tx: Db) => rights.standings(tx, { orgId, who, deviceIds });
    const found = await standings(database.db);
    expect(found.map(({ deviceId, ownerId }) => ({ deviceId, ownerId }))).toEqual(
      expect.arrayContaining(asked),
    );
    expect(found.every(({ ownerName }) => ownerName?.startsWith("person "))).toBe(true);
    const read = () => rowsRead({ db: database.database.tenantDb, tables: "^user" }, standings);
    expect(await withinOrg(orgId, read)).toBeLessThan(5 + 2 * asked.length);
  }
});

test("the schedules after one are read without those before it", async () => {
  const { rows } = await sql<{ orgId: string; watcherId: string }>`
    select org_id as "orgId", watcher_id as "watcherId" from schedule_position order by 1, 2 offset ${many / 2} limit 51`.execute(
    database.db,
  );
  const [after, ...wanted] = rows;
  const next = (tx: Db) => listPlanned(tx, { after, aheadMs: 300_000, limit: 50 });
  const found = await next(database.db);
  expect(found.map(({ orgId, watcherId }) => ({ orgId, watcherId }))).toEqual(wanted);
  expect(await rowsRead({ db: database.db, tables: "^(watcher|schedule_position)" }, next)).toBeLessThan(500);
});
