import { sql } from "kysely";
import { expect, test } from "vitest";
import * as events from "../../../src/store/work/events.ts";
import { useDatabase } from "../../support/database.ts";
import { addTenant } from "../server/tenants.ts";

const database = useDatabase();

test("a reader that resumes misses nothing while a writer holds its transaction open", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const start = await events.head(db, { orgId: "acme" });
  let second: Promise<void> | undefined;
  await db.transaction().execute(async (first) => {
    await events.append(first, "acme", [{ kind: "test.first", actor: "pinion" }]);
    // It waits for the first one's commit, so it cannot be seen before it.
    second = db
      .transaction()
      .execute((tx) => events.append(tx, "acme", [{ kind: "test.second", actor: "pinion" }]));
    await untilSomebodyWaits();
    expect(await events.listAfter(db, { orgId: "acme", afterSeq: start, limit: 10 })).toEqual([]);
  });
  await second;
  const kinds = (await events.listAfter(db, { orgId: "acme", afterSeq: start, limit: 10 })).map(
    (row) => row.kind,
  );
  expect(kinds).toEqual(["test.first", "test.second"]);
});

test("writers of many orgs in opposite orders do not wait for each other in a circle", async () => {
  const { db } = database;
  const orgIds = ["a", "b", "c", "d"];
  for (const orgId of orgIds) await addTenant(db, orgId);
  const write = (order: string[]) =>
    db.transaction().execute((tx) =>
      events.appendAll(
        tx,
        order.map((orgId) => ({ orgId, kind: "test.many", actor: "pinion" })),
      ),
    );
  await Promise.all(Array.from({ length: 30 }, (_, i) => write(i % 2 ? orgIds : orgIds.toReversed())));
  for (const orgId of orgIds) {
    expect(await events.list(db, { orgId, limit: 100 })).toHaveLength(30);
  }
});

test("twenty writers and a reader that follows them: every event once", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const seen: number[] = [];
  let isDone = false;
  const reading = (async () => {
    let seq = 0;
    for (;;) {
      const wasDone = isDone;
      const batch = await events.listAfter(db, { orgId: "acme", afterSeq: seq, limit: 7 });
      for (const event of batch) {
        seq = event.seq;
        seen.push(event.data.n);
      }
      if (wasDone && batch.length === 0) return;
    }
  })();
  await Promise.all(
    Array.from({ length: 200 }, (_, n) =>
      db
        .transaction()
        .execute((tx) => events.append(tx, "acme", [{ kind: "test.n", actor: "pinion", data: { n } }])),
    ),
  );
  isDone = true;
  await reading;
  expect(seen.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, n) => n));
});

test("events of one call keep their order; lists show the newest first, by kind and by run", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const runId = "0190f5fe-7c00-7a00-8000-000000000001";
  await events.append(db, "acme", [
    { kind: "run.created", actor: "pinion", runId },
    { kind: "run.completed", actor: "device:x", runId },
    { kind: "watcher.paused", actor: "user:x", data: { reason: "50%_off" } },
  ]);
  const kinds = async (options: { runId?: string; kinds?: string[] }) =>
    (await events.list(db, { orgId: "acme", limit: 10, ...options })).map((row) => row.kind);
  expect(await kinds({})).toEqual(["watcher.paused", "run.completed", "run.created"]);
  expect(await kinds({ runId })).toEqual(["run.completed", "run.created"]);
  expect(await kinds({ kinds: ["run.c", "watcher.paused"] })).toEqual([
    "watcher.paused",
    "run.completed",
    "run.created",
  ]);
  // A prefix is text, not a pattern.
  expect(await kinds({ kinds: ["run%"] })).toEqual([]);
  const [first] = await events.listAfter(db, { orgId: "acme", afterSeq: 0, limit: 1 });
  expect(first).toMatchObject({ kind: "run.created", run_id: runId });
});

/** Until another connection waits for a lock that somebody holds. */
async function untilSomebodyWaits(): Promise<void> {
  for (;;) {
    const { rows } = await sql<{ waiting: boolean }>`
      select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock') as waiting`.execute(database.db);
    if (rows[0]!.waiting) return;
  }
}
