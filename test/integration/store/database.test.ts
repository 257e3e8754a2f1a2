import { sql } from "kysely";
import { afterEach, expect, test, vi } from "vitest";
import {
  type Database,
  type DatabaseOptions,
  openDatabase,
  transaction,
} from "../../../src/store/pg/database.ts";
import { isUnavailable } from "../../../src/store/pg/failures.ts";
import { useDatabase } from "../../support/database.ts";
import { isClockFaked } from "../../support/faketime.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";

const t = useDatabase();
const opened: Database[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((database) => database.close()));
});

function open(options: Partial<DatabaseOptions> = {}): Database {
  const database = openDatabase({ url: t.url, poolMax: 2, ...options });
  opened.push(database);
  return database;
}

async function throughProxy() {
  const url = new URL(t.url);
  const proxy = await startFaultProxy({ port: Number(url.port), host: url.hostname });
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  return { proxy, url: url.href };
}

function caught(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

async function addOrg(id: string): Promise<void> {
  await t.db.insertInto("org").values({ id, name: id }).execute();
}

test("counters arrive as numbers, times as dates, JSON as objects", async () => {
  await t.db
    .insertInto("org")
    .values({ id: "o", name: "O", metadata: { a: [1] } })
    .execute();
  const device = { org_id: "o", install_id: "i", os: "linux", label: "l", agent_kinds: ["x"] };
  const { id } = await t.db.insertInto("device").values(device).returning("id").executeTakeFirstOrThrow();
  await t.db.insertInto("presence").values({ org_id: "o", device_id: id, epoch: 7_000_000_000 }).execute();
  const presence = await t.db.selectFrom("presence").selectAll().executeTakeFirstOrThrow();
  expect(presence.epoch).toBe(7_000_000_000);
  const org = await t.db.selectFrom("org").selectAll().executeTakeFirstOrThrow();
  expect(org.created_at).toBeInstanceOf(Date);
  expect(org.metadata).toEqual({ a: [1] });
});

test.skipIf(isClockFaked)(
  "a statement that takes too long is ended, which does not mean that the database is away",
  async () => {
    const { db } = open({ statementTimeoutMs: 50 });
    const error = await caught(sql`select pg_sleep(10)`.execute(db));
    expect(error).toMatchObject({ code: "57014" });
    expect(isUnavailable(error)).toBe(false);
  },
);

test("whoever waits too long for a connection is told that the database is away", async () => {
  const { db } = open({ poolMax: 1, connectTimeoutMs: 100 });
  await db.transaction().execute(async () => {
    expect(isUnavailable(await caught(sql`select 1`.execute(db)))).toBe(true);
  });
});

test("a database that is not there is known as away", async () => {
  const { db } = open({ url: "postgres://nobody@127.0.0.1:1/none" });
  expect(isUnavailable(await caught(sql`select 1`.execute(db)))).toBe(true);
});

test("a backend that is killed at work fails its call alone, and the next call works", async () => {
  const { db } = open({ applicationName: "victim" });
  const failing = caught(sql`select pg_sleep(20)`.execute(db));
  await vi.waitFor(async () => {
    const killed = await sql`select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = 'victim' and state = 'active' and query like '%pg_sleep%'`.execute(t.db);
    expect(killed.rows).toHaveLength(1);
  });
  expect(isUnavailable(await failing)).toBe(true);
  expect((await sql<{ one: number }>`select 1 as one`.execute(db)).rows[0]?.one).toBe(1);
});

test("a backend that is killed while a transaction rests loses the transaction and not the process", async () => {
  const { db } = open({ applicationName: "victim" });
  const error = await caught(
    db.transaction().execute(async (tx) => {
      await sql`select 1`.execute(tx);
      await sql`select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'victim' and state = 'idle in transaction'`.execute(t.db);
      await sql`select 1`.execute(tx);
    }),
  );
  expect(isUnavailable(error)).toBe(true);
  await sql`select 1`.execute(db);
});

test("a connection that goes silent without a word fails its calls as away, and is not used again", async () => {
  const { proxy, url } = await throughProxy();
  try {
    const { db } = open({
      url,
      poolMax: 1,
      connectTimeoutMs: 200,
      statementTimeoutMs: 100,
      silenceMs: 100,
    });
    await sql`select 1`.execute(db);
    proxy.set({ down: "blackhole" });
    expect(isUnavailable(await caught(sql`select 1`.execute(db)))).toBe(true);
    expect(isUnavailable(await caught(transaction(db, (tx) => sql`select 1`.execute(tx))))).toBe(true);
    proxy.heal();
    expect((await sql<{ one: number }>`select 1 as one`.execute(db)).rows).toEqual([{ one: 1 }]);
  } finally {
    await proxy.close();
  }
});

test("an idle backend that is killed is replaced without an error", async () => {
  const { db } = open({ applicationName: "victim", poolMax: 1 });
  await sql`select 1`.execute(db);
  await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'victim'`.execute(
    t.db,
  );
  await vi.waitFor(() => sql`select 1`.execute(db));
});

test("a connection that comes back within a transaction is not used again", async () => {
  const { db } = open({ poolMax: 1 });
  const pid = () =>
    sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(db).then((r) => r.rows[0]?.pid);
  const before = await pid();
  await db.connection().execute((connection) => sql`begin`.execute(connection));
  expect(await pid()).not.toBe(before);
  await addOrg("kept");
  expect(await t.db.selectFrom("org").select("id").execute()).toHaveLength(1);
});

test.skipIf(isClockFaked)("two transactions that deadlock both succeed in the end", async () => {
  await addOrg("a");
  await addOrg("b");
  const touch = (tx: typeof t.db, id: string) =>
    tx.updateTable("org").set({ name: sql`name || '+'` }).where("id", "=", id).execute();
  let waiting = 0;
  let meet: () => void = () => {};
  const met = new Promise<void>((resolve) => {
    meet = resolve;
  });
  let runs = 0;
  const cross = (first: string, second: string) =>
    transaction(t.db, async (tx) => {
      runs++;
      await touch(tx, first);
      if (++waiting === 2) meet();
      await met;
      await touch(tx, second);
    });
  await Promise.all([cross("a", "b"), cross("b", "a")]);
  expect(runs).toBeGreaterThan(2);
  const names = await t.db.selectFrom("org").select("name").orderBy("id").execute();
  expect(names).toEqual([{ name: "a++" }, { name: "b++" }]);
});

test("a transaction within a transaction is part of it", async () => {
  const error = await caught(
    transaction(t.db, async (tx) => {
      await transaction(tx, (inner) => inner.insertInto("org").values({ id: "x", name: "x" }).execute());
      throw new Error("on purpose");
    }),
  );
  expect(error).toMatchObject({ message: "on purpose" });
  expect(await t.db.selectFrom("org").selectAll().execute()).toEqual([]);
});

test("closing twice, or before the first use, is fine", async () => {
  const unused = open();
  await unused.close();
  await unused.close();
  expect(isUnavailable(await caught(sql`select 1`.execute(unused.db)))).toBe(true);
});

test("callers of one moment share the connections that are there, while one more is opened", async () => {
  const { proxy, url } = await throughProxy();
  const database = open({ url, poolMax: 10, connectTimeoutMs: 10_000 });
  await sql`select 1`.execute(database.db);
  // The further connection is opened for as long as the test lasts.
  proxy.set({ onConnect: "hang" });
  await Promise.all(Array.from({ length: 8 }, () => sql`select 1`.execute(database.db)));
  await expect.poll(() => proxy.connected).toBe(2);
  expect(database.opened()).toBe(1);
  expect(database.stats().waiting).toBe(0);
  await proxy.close();
});

test("whoever finds all connections taken for long gets another one", async () => {
  const database = open({ poolMax: 3 });
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const holding = [0, 1].map(() =>
    transaction(database.db, (tx) => sql`select 1`.execute(tx).then(() => held)),
  );
  await sql`select 1`.execute(database.db);
  expect(database.opened()).toBe(3);
  release();
  await Promise.all(holding);
});

test("if no further connection can be opened, callers have those that are given back", async () => {
  const { proxy, url } = await throughProxy();
  const database = open({ url, poolMax: 5 });
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const holding = transaction(database.db, (tx) => sql`select 1`.execute(tx).then(() => held));
  await expect.poll(() => database.stats().open).toBe(1);
  proxy.set({ onConnect: "reset" });
  const waiting = [0, 1, 2].map(() => sql`select 1`.execute(database.db));
  await expect.poll(() => database.stats()).toMatchObject({ open: 1, waiting: 3 });
  release();
  await Promise.all([holding, ...waiting]);
  await proxy.close();
});
