/** Row-level security alone: statements without a condition on the org, or with the wrong org. */
import { sql } from "kysely";
import pg from "pg";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Database, type Db, openDatabase, transaction } from "../../../src/store/pg/database.ts";
import { migrate } from "../../../src/store/pg/migrate.ts";
import { requireRoles, withinOrg } from "../../../src/store/pg/tenancy.ts";
import { administer, createTestDatabase, useDatabase } from "../../support/database.ts";
import { addDevice, addTenant } from "../../support/tenants.ts";

const database = useDatabase();
let opened: Database;
let db: Db;

beforeEach(async () => {
  // One connection: state left on the connection by a statement would be found by the next
  // statement.
  opened = openDatabase({ url: database.url, poolMax: 1 });
  db = opened.tenantDb;
  for (const orgId of ["acme", "globex"]) {
    await addDevice(database.db, await addTenant(database.db, orgId), { label: `${orgId}'s box` });
  }
});
afterEach(() => opened.close());

const as = <T>(orgId: string, statement: () => Promise<T>) => withinOrg(orgId, statement);

/** The tables with an org_id, without partitions, and the two tables that name orgs and people. */
async function tenantTables(): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select distinct c.oid::regclass::text as name from pg_class c
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'org_id' and not a.attisdropped
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    union values ('org'), ('"user"') order by 1`.execute(database.db);
  return rows.map((row) => row.name);
}

test("every table with tenants' data forces row-level security, and only requests are confined by it", async () => {
  const { rows } = await sql<{ name: string; tenant: string; scheduler: string }>`
    select c.oid::regclass::text as name,
      string_agg(pg_get_expr(polqual, polrelid), '') filter (where 'pinion_server'::regrole = any (polroles)) as tenant,
      string_agg(pg_get_expr(polqual, polrelid), '') filter (where 'pinion_scheduler'::regrole = any (polroles)) as scheduler
    from pg_class c join pg_policy p on p.polrelid = c.oid
    where c.relrowsecurity and c.relforcerowsecurity and c.relnamespace = 'public'::regnamespace
    group by c.oid order by 1`.execute(database.db);
  expect(rows.map((row) => row.name)).toEqual(await tenantTables());
  for (const row of rows) {
    expect([row.name, row.scheduler]).toEqual([row.name, "true"]);
    // A sub-select, so that the setting is read once for a statement.
    if (row.name !== '"user"') expect(row.tenant).toMatch(/= \( SELECT current_setting\('pinion.org'/);
  }
});

test("a statement without any condition sees the rows of its org and of no other", async () => {
  for (const table of await tenantTables()) {
    const own =
      table === "org" ? sql`id = 'acme'` : table === '"user"' ? sql`name = 'acme'` : sql`org_id = 'acme'`;
    const { rows } = await as("acme", () =>
      sql<{ total: number; own: number }>`
        select count(*) as total, count(*) filter (where ${own}) as own from ${sql.raw(table)}`.execute(db),
    );
    expect([table, rows[0]!.total]).toEqual([table, rows[0]!.own]);
  }
  expect(
    (await as("acme", () => db.selectFrom("device").select("label").execute())).map((d) => d.label),
  ).toEqual(["acme's box"]);
  expect(await as("nobody", () => db.selectFrom("device").selectAll().execute())).toEqual([]);
  expect(await as("nobody", () => db.selectFrom("user").selectAll().execute())).toEqual([]);
  expect(await as("nobody", () => sql`select * from run_all`.execute(db)).then((r) => r.rows)).toEqual([]);
});

test("with the wrong org, a row that is asked for by its key is not there, cannot be changed, removed or made", async () => {
  const device = await database.db
    .selectFrom("device")
    .selectAll()
    .where("org_id", "=", "globex")
    .executeTakeFirstOrThrow();
  const found = await as("acme", () =>
    db.selectFrom("device").selectAll().where("org_id", "=", "globex").where("id", "=", device.id).execute(),
  );
  expect(found).toEqual([]);
  const changed = await as("acme", () =>
    db.updateTable("device").set({ label: "mine" }).where("id", "=", device.id).executeTakeFirst(),
  );
  expect(changed.numUpdatedRows).toBe(0n);
  const removed = await as("acme", () =>
    db.deleteFrom("token").where("org_id", "=", "globex").executeTakeFirst(),
  );
  expect(removed.numDeletedRows).toBe(0n);
  const refused = { code: "42501" };
  await expect(
    as("acme", () =>
      db
        .insertInto("device")
        .values({ org_id: "globex", install_id: "x", os: "linux", label: "x" })
        .execute(),
    ),
  ).rejects.toMatchObject(refused);
  await expect(
    as("acme", () => db.updateTable("device").set({ org_id: "globex" }).execute()),
  ).rejects.toMatchObject(refused);
  await expect(
    as("acme", () => db.insertInto("org").values({ id: "x", name: "x" }).execute()),
  ).rejects.toMatchObject(refused);
  expect(await database.db.selectFrom("device").selectAll().where("id", "=", device.id).execute()).toEqual([
    device,
  ]);
});

test("a transaction is confined as a whole, and what it set is gone with it, also when it fails", async () => {
  const labels = (tx: Db) => tx.selectFrom("device").select("label").execute();
  const seen = await as("globex", () =>
    transaction(db, async (tx) => {
      await tx.updateTable("device").set({ label: "renamed" }).execute();
      return labels(tx);
    }),
  );
  expect(seen).toEqual([{ label: "renamed" }]);
  await expect(as("globex", () => transaction(db, (tx) => sql`select 1 / 0`.execute(tx)))).rejects.toThrow();
  await expect(as("globex", () => sql`select 1 / 0`.execute(db))).rejects.toThrow();
  expect(await as("acme", () => labels(db))).toEqual([{ label: "acme's box" }]);
  // The same connection, for statements across orgs.
  expect(await labels(opened.db)).toHaveLength(2);
  const { rows } =
    await sql`select current_user = session_user as is_back, current_setting('pinion.org', true) as org`.execute(
      opened.db,
    );
  expect(rows).toEqual([{ is_back: true, org: "" }]);
});

test("a tenant's database that is asked outside of a call answers nothing at all", async () => {
  await expect(db.selectFrom("device").selectAll().execute()).rejects.toThrow("outside of a tenant's call");
});

test("a request reaches no partition past the table, and no event is changed or removed by it", async () => {
  const refused = { code: "42501" };
  await expect(as("acme", () => sql`select * from run_finished_default`.execute(db))).rejects.toMatchObject(
    refused,
  );
  await expect(as("acme", () => sql`update event_row set actor = 'x'`.execute(db))).rejects.toMatchObject(
    refused,
  );
  await expect(as("acme", () => sql`delete from event_row`.execute(db))).rejects.toMatchObject(refused);
  await expect(as("acme", () => sql`select * from replica`.execute(db))).rejects.toMatchObject(refused);
  await expect(
    sql`set role pinion_scheduler; update event_row set actor = 'x'`.execute(opened.db),
  ).rejects.toMatchObject(refused);
});

test("an org's name is a value, whatever is written in it", async () => {
  const name = "acme'; reset role; --";
  expect(await as(name, () => db.selectFrom("device").selectAll().execute())).toEqual([]);
});

test("a user that is no superuser migrates, serves all orgs, and confines requests", async () => {
  const empty = await createTestDatabase({ isEmpty: true });
  const name = `plain_${Date.now()}`;
  try {
    await administer(`create role ${name} login createrole password 'x'`);
    await administer(`grant pinion_server, pinion_scheduler to ${name}`);
    const url = new URL(empty.url);
    await administer(`alter database ${url.pathname.slice(1)} owner to ${name}`);
    const own = new pg.Client({ connectionString: empty.url });
    await own.connect();
    await own.query(`grant all on schema public to ${name}`);
    await own.end();
    url.username = name;
    url.password = "x";
    await migrate(url.href);
    await withDatabase(openDatabase({ url: url.href, poolMax: 2 }), async (plain) => {
      await requireRoles(plain.db);
      await addTenant(plain.db, "acme");
      await addTenant(plain.db, "globex");
      expect(await plain.db.selectFrom("agent").select("org_id").execute()).toHaveLength(2);
      expect(await as("acme", () => plain.tenantDb.selectFrom("agent").select("org_id").execute())).toEqual([
        { org_id: "acme" },
      ]);
    });
  } finally {
    await empty.drop();
    await administer(`drop owned by ${name}; drop role ${name}`).catch(() => {});
  }
});

async function withDatabase(database: Database, fn: (database: Database) => Promise<void>): Promise<void> {
  try {
    await fn(database);
  } finally {
    await database.close();
  }
}

test("a user that may not create roles is told what an administrator has to run", async () => {
  // In this cluster the roles exist; the user was not granted them.
  const empty = await createTestDatabase({ isEmpty: true });
  const name = `weak_${Date.now()}`;
  try {
    await administer(`create role ${name} login password 'x'`);
    const url = new URL(empty.url);
    await administer(`alter database ${url.pathname.slice(1)} owner to ${name}`);
    url.username = name;
    url.password = "x";
    await withDatabase(openDatabase({ url: url.href, poolMax: 1 }), async (weak) => {
      await expect(requireRoles(weak.db)).rejects.toThrow(
        `grant pinion_server, pinion_scheduler to "${name}";`,
      );
    });
  } finally {
    await empty.drop();
    await administer(`drop role ${name}`).catch(() => {});
  }
});
