/** Statements that are sent together: how many round trips, and what an error on the way leaves. */
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { sql } from "kysely";
import pg from "pg";
import { afterEach, expect, test, vi } from "vitest";
import {
  type Database,
  type DatabaseOptions,
  type Db,
  openDatabase,
  transaction,
  undoOnFailure,
} from "../../../src/store/pg/database.ts";
import { rehearsable } from "../../../src/store/pg/dry-run.ts";
import { isUnavailable } from "../../../src/store/pg/failures.ts";
import { answeredLate, inCompany } from "../../../src/store/pg/round-trips.ts";
import { withinOrg } from "../../../src/store/pg/tenancy.ts";
import { ofFew } from "../../../src/store/pg/values/unnest.ts";
import * as events from "../../../src/store/work/service/events.ts";
import { administer, useDatabase } from "../../support/database.ts";
import { isClockFaked } from "../../support/faketime.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { countTrips } from "../../support/trips.ts";

const t = useDatabase();
const opened: Database[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  await Promise.all(opened.splice(0).map((database) => database.close()));
});

function open(options: Partial<DatabaseOptions> = {}): Database {
  const database = openDatabase({ url: t.url, poolMax: 1, ...options });
  opened.push(database);
  return database;
}

const addOrg = (tx: Db, id: string) => sql`insert into org (id, name) values (${id}, ${id})`.execute(tx);
/** Sent with the next statement. */
const addLater = (tx: Db, id: string) =>
  sql`${inCompany} insert into org (id, name) values (${id}, ${id})`.execute(tx);
const orgs = async () => (await t.db.selectFrom("org").select("id").orderBy("id").execute()).map((o) => o.id);
const one = async (db: Db) => (await sql<{ one: number }>`select 1 as one`.execute(db)).rows;

const caught = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

test("the beginning goes with the first statement, and what waits goes with the commit", async () => {
  const { db } = open();
  await one(db);
  const trips = countTrips();
  await transaction(db, async (tx) => {
    await addOrg(tx, "a");
    await addLater(tx, "b");
    await addLater(tx, "c");
  });
  expect(trips()).toBe(2);
  await transaction(db, (tx) => events.append(tx, "a", [{ kind: "org.created", actor: "pinion" }]));
  expect(trips()).toBe(1);
  await transaction(db, async () => {});
  await caught(
    transaction(db, async () => {
      throw new Error("before its first statement");
    }),
  );
  expect(trips()).toBe(0);
  expect(await orgs()).toEqual(["a", "b", "c"]);
  expect(await t.db.selectFrom("event_row").select("kind").execute()).toEqual([{ kind: "org.created" }]);
});

test("a statement of a tenant is one round trip, and so is each of a tenant's transaction", async () => {
  const { tenantDb } = open();
  await addOrg(t.db, "a");
  await withinOrg("a", () => one(tenantDb));
  const trips = countTrips();
  const read = await withinOrg("a", () => tenantDb.selectFrom("org").select("id").execute());
  expect([trips(), read]).toEqual([1, [{ id: "a" }]]);
  const name = await withinOrg("a", () =>
    transaction(tenantDb, async (tx) => {
      await tx.updateTable("org").set({ name: "A" }).execute();
      return tx.selectFrom("org").select("name").executeTakeFirstOrThrow();
    }),
  );
  expect([trips(), name]).toEqual([3, { name: "A" }]);
});

test("what waits is executed before the next statement, which sees it", async () => {
  const { db } = open();
  const seen = await transaction(db, async (tx) => {
    await addLater(tx, "a");
    return tx.selectFrom("org").select("id").execute();
  });
  expect(seen).toEqual([{ id: "a" }]);
});

test("a statement that waited and fails is the error of the commit, and nothing is committed", async () => {
  const { db } = open();
  await addOrg(t.db, "there");
  const error = await caught(
    transaction(db, async (tx) => {
      await addOrg(tx, "new");
      await addLater(tx, "there");
    }),
  );
  expect(error).toMatchObject({ code: "23505" });
  expect(await orgs()).toEqual(["there"]);
  expect(await one(db)).toEqual([{ one: 1 }]);
});

test("a statement whose rows are read after the commit is sent with the commit", async () => {
  const { db } = open();
  await addOrg(db, "there");
  const trips = countTrips();
  const addLate = (tx: Db, id: string) =>
    sql<{
      id: string;
    }>`${answeredLate}${ofFew} insert into org (id, name) values (${id}, 'late') returning id`.execute(tx);
  const added = await transaction(db, async (tx) => {
    await addLater(tx, "a");
    const answers = [await addLate(tx, "b"), await addLate(tx, "c")];
    expect(answers.map(({ rows }) => rows)).toEqual([[], []]);
    await addLater(tx, "d");
    return answers;
  });
  expect(trips()).toBe(1);
  expect(added.map(({ rows }) => rows)).toEqual([[{ id: "b" }], [{ id: "c" }]]);
  const refused = transaction(db, (tx) => addLate(tx, "there"));
  expect(await caught(refused)).toMatchObject({ code: "23505" });
  expect(await orgs()).toEqual(["a", "b", "c", "d", "there"]);
});

test("behind a statement that waited and fails, the next is not executed", async () => {
  const { db } = open();
  await addOrg(t.db, "there");
  const error = await caught(
    transaction(db, async (tx) => {
      await addLater(tx, "there");
      await addOrg(tx, "new");
    }),
  );
  expect(error).toMatchObject({ code: "23505" });
  expect(await orgs()).toEqual(["there"]);
  expect(await one(db)).toEqual([{ one: 1 }]);
});

test("a transaction that is undone drops what waits", async () => {
  const { db } = open();
  await rehearsable(db, true, async (tx) => {
    await addOrg(tx, "a");
    await addLater(tx, "b");
  });
  await caught(
    transaction(db, async (tx) => {
      await addLater(tx, "c");
      throw new Error("on purpose");
    }),
  );
  await addOrg(db, "d");
  expect(await orgs()).toEqual(["d"]);
});

test("a part that is undone takes with it what waited in the part, and nothing else", async () => {
  const { db } = open();
  await addOrg(t.db, "there");
  await transaction(db, async (tx) => {
    await addLater(tx, "before");
    const failed = await undoOnFailure(tx, async () => {
      await addOrg(tx, "undone");
      await addLater(tx, "there");
    });
    expect(failed).toMatchObject({ error: { code: "23505" } });
    const thrown = await undoOnFailure(tx, async () => {
      await addLater(tx, "dropped");
      throw new Error("on purpose");
    });
    expect(thrown).toMatchObject({ error: { message: "on purpose" } });
    await addLater(tx, "after");
  });
  expect(await orgs()).toEqual(["after", "before", "there"]);
});

test("a tenant's statement is not executed where the change of role is refused", async () => {
  const url = new URL(t.url);
  const user = "without_roles";
  await administer(`drop role if exists ${user}`).catch(() => undefined);
  await administer(`create role ${user} login password 'x'`);
  await sql`grant insert, select on org to without_roles`.execute(t.db);
  await sql`alter table org disable row level security`.execute(t.db);
  url.username = user;
  url.password = "x";
  const { tenantDb, db } = open({ url: url.href });
  for (const insert of [
    () => addOrg(tenantDb, "a"),
    () => transaction(tenantDb, (tx) => addOrg(tx, "b")),
    () => transaction(tenantDb, (tx) => addLater(tx, "c")),
  ]) {
    expect(await caught(withinOrg("a", insert))).toMatchObject({ code: "42501" });
  }
  expect(await orgs()).toEqual([]);
  await addOrg(db, "d");
  expect(await orgs()).toEqual(["d"]);
  await sql`drop owned by without_roles`.execute(t.db);
  await administer(`drop role ${user}`);
});

test("a value that cannot be sent fails its statement alone, and the transaction is undone", async () => {
  const { db } = open();
  const pid = async () =>
    (await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(db)).rows[0]!.pid;
  const before = await pid();
  const unsendable = {
    toPostgres() {
      throw new Error("no such value");
    },
  };
  for (const mark of [sql``, inCompany, ofFew]) {
    const error = await caught(
      transaction(db, async (tx) => {
        await addLater(tx, "a");
        await sql`${mark} insert into org (id, name) values ('b', ${unsendable})`.execute(tx);
        await addOrg(tx, "c");
      }),
    );
    expect(error).toMatchObject({ message: "no such value" });
  }
  expect(await orgs()).toEqual([]);
  expect(await pid()).toBe(before);
});

test("a text that PostgreSQL refuses to read can be corrected and sent again by the same connection", async () => {
  const { db } = open();
  const text = sql`${ofFew} insert into soon (id) values (${"x"})`;
  const insert = () => transaction(db, async (tx) => void (await text.execute(tx)));
  expect(await caught(insert())).toMatchObject({ code: "42P01" });
  expect(await caught(insert())).toMatchObject({ code: "42P01" });
  await sql`create table soon (id text)`.execute(t.db);
  await insert();
  expect((await sql`select id from soon`.execute(t.db)).rows).toEqual([{ id: "x" }]);
});

const killSelf = sql`select pg_terminate_backend(pg_backend_pid()), pg_sleep(10)`;

test("a backend that dies in the middle leaves nothing, and means that the database is away", async () => {
  const { db } = open();
  const ends: ((tx: Db) => Promise<unknown>)[] = [
    // With the beginning, in the middle, and before the commit.
    (tx) => killSelf.execute(tx),
    async (tx) => {
      await addOrg(tx, "a");
      await addLater(tx, "b");
      await killSelf.execute(tx);
    },
    async (tx) => {
      await addOrg(tx, "c");
      await sql`${inCompany} ${killSelf}`.execute(tx);
    },
  ];
  for (const end of ends) {
    expect(isUnavailable(await caught(transaction(db, end)))).toBe(true);
    expect(await one(db)).toEqual([{ one: 1 }]);
  }
  expect(await orgs()).toEqual([]);
});

test("a line that breaks between two round trips leaves nothing, and one that goes silent is given up", async () => {
  const url = new URL(t.url);
  const proxy = await startFaultProxy({ port: Number(url.port), host: url.hostname });
  try {
    url.hostname = "127.0.0.1";
    url.port = String(proxy.port);
    const { db, tenantDb } = open({
      url: url.href,
      connectTimeoutMs: 500,
      statementTimeoutMs: 100,
      silenceMs: 100,
    });
    const broken = transaction(db, async (tx) => {
      await addOrg(tx, "a");
      await addLater(tx, "b");
      proxy.reset();
    });
    expect(isUnavailable(await caught(broken))).toBe(true);
    await one(db);
    proxy.set({ down: "blackhole" });
    const silent = transaction(db, async (tx) => {
      await addLater(tx, "c");
      await addOrg(tx, "d");
    });
    expect(isUnavailable(await caught(silent))).toBe(true);
    proxy.heal();
    await withinOrg("a", () => one(tenantDb));
    proxy.set({ up: "blackhole" });
    expect(isUnavailable(await caught(withinOrg("a", () => one(tenantDb))))).toBe(true);
    proxy.heal();
    await addOrg(db, "e");
    expect(await orgs()).toEqual(["e"]);
  } finally {
    await proxy.close();
  }
});

test.skipIf(isClockFaked)(
  "a statement that waited and takes too long is ended, and the database is not away",
  async () => {
    const { db } = open({ statementTimeoutMs: 50 });
    const error = await caught(
      transaction(db, async (tx) => {
        await addOrg(tx, "a");
        await sql`${inCompany} select pg_sleep(10)`.execute(tx);
      }),
    );
    expect(error).toMatchObject({ code: "57014" });
    expect(isUnavailable(error)).toBe(false);
    expect(await orgs()).toEqual([]);
    expect(await one(db)).toEqual([{ one: 1 }]);
  },
);

test("each statement that is sent with others has its own time", async () => {
  // Together longer than the limit of one, and than the client's patience with one.
  const { db } = open({ statementTimeoutMs: 400, silenceMs: 50 });
  const rest = (tx: Db) => sql`${inCompany} select pg_sleep(0.25)`.execute(tx);
  await transaction(db, async (tx) => {
    await rest(tx);
    await rest(tx);
    await addOrg(tx, "a");
  });
  expect(await orgs()).toEqual(["a"]);
});

test("a first statement that is cancelled is executed neither within its transaction nor outside", async () => {
  const { db } = open({ applicationName: "victim" });
  await one(db);
  const holder = open();
  const [held, free] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const holding = transaction(holder.db, async (tx) => {
    await sql`lock table org in exclusive mode`.execute(tx);
    held.resolve();
    await free.promise;
  });
  await held.promise;
  const cancelled = caught(transaction(db, (tx) => addOrg(tx, "a")));
  await vi.waitFor(async () => {
    const { rows } = await sql`select pg_cancel_backend(pid) from pg_stat_activity
      where application_name = 'victim' and wait_event_type = 'Lock'`.execute(t.db);
    expect(rows).toHaveLength(1);
  });
  expect(await cancelled).toMatchObject({ code: "57014" });
  free.resolve();
  await holding;
  expect(await orgs()).toEqual([]);
  await transaction(db, (tx) => addOrg(tx, "b"));
  expect(await orgs()).toEqual(["b"]);
});

test("a statement that was skipped, because one before it failed, is prepared the next time", async () => {
  const { db } = open();
  const named = (tx: Db) => sql<{ id: string }>`${ofFew} select id from org where id = ${"a"}`.execute(tx);
  await addOrg(db, "a");
  const failed = transaction(db, async (tx) => {
    await addLater(tx, "a");
    await named(tx);
  });
  expect(await caught(failed)).toMatchObject({ code: "23505" });
  expect((await transaction(db, named)).rows).toEqual([{ id: "a" }]);
});

test("a connection asks for the columns of a prepared statement once, wherever it is sent", async () => {
  const { prototype } = (pg as unknown as { Connection: { prototype: { describe(): void } } }).Connection;
  const asked = vi.spyOn(prototype, "describe");
  const askedFor = async <T>(work: () => Promise<T>): Promise<[number, T]> => {
    asked.mockClear();
    const result = await work();
    return [asked.mock.calls.length, result];
  };
  const add = (tx: Db, id: string, mark = sql``) =>
    sql`${mark}${ofFew} insert into org (id, name) values (${id}, 'new')`.execute(tx);
  const find = async (tx: Db, id: string) =>
    (
      await sql<{ id: string; name: string; created_at: Date }>`${ofFew}
        select id, name, created_at from org where id = ${id}`.execute(tx)
    ).rows;
  const { db, tenantDb } = open();
  expect(await askedFor(() => find(db, "a"))).toEqual([1, []]);
  await add(db, "a");
  const [, [found]] = await askedFor(() => find(t.db, "a"));
  expect(found!.created_at).toBeInstanceOf(Date);
  expect(await askedFor(() => find(db, "a"))).toEqual([0, [found]]);
  // The statements about the transaction are not prepared.
  expect(await askedFor(() => transaction(db, (tx) => find(tx, "a")))).toEqual([1, [found]]);
  const tenant = () => withinOrg("a", () => find(tenantDb, "a"));
  await tenant();
  expect(await askedFor(tenant)).toEqual([2, [found]]);
  // A statement without columns, sent with others.
  const added = (id: string) =>
    transaction(db, async (tx) => {
      await add(tx, id, inCompany);
      return find(tx, id);
    });
  await added("b");
  const [times, [other]] = await askedFor(() => added("c"));
  expect([times, other]).toEqual([1, { ...found, id: "c", created_at: other!.created_at }]);
  // A new connection.
  expect(await askedFor(() => find(open().db, "a"))).toEqual([1, [found]]);
});

test("answers that nobody uses any more do not wait for a full collection of the heap", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as (options?: { type: "minor" }) => void;
  const oldBytes = () =>
    getHeapSpaceStatistics().find((space) => space.space_name === "old_space")?.space_used_size ?? 0;
  const { db } = open();
  const rowsEach = 2_000;
  const ask = (tx: Db) => sql`select i, ${1}::int as one from generate_series(1, ${rowsEach}) i`.execute(tx);
  const both = async () => {
    await ask(db);
    await transaction(db, ask);
  };
  // Compiled and prepared before.
  for (let times = 0; times < 20; times++) await both();
  collect();
  const before = oldBytes();
  const times = 50;
  for (let time = 0; time < times; time++) {
    await both();
    collect({ type: "minor" });
    collect({ type: "minor" });
  }
  // A row is an object of at least 32 bytes: kept, the answers would be more than 6 MB. Code that
  // is compiled meanwhile becomes old, too: up to 0.5 MB.
  expect((oldBytes() - before) / (2 * times * rowsEach)).toBeLessThan(16);
});
