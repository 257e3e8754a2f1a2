import { sql } from "kysely";
import { expect, test } from "vitest";
import { type Db, transaction, undoOnFailure } from "../../../src/store/pg/database.ts";
import * as events from "../../../src/store/work/service/events.ts";
import { orderOf } from "../../../src/store/work/service/lone-events.ts";
import { newId } from "../../../src/values/ids.ts";
import { useDatabase } from "../../support/database.ts";
import { orgId, seedDevice } from "../../support/rows.ts";
import { addTenant } from "../../support/tenants.ts";

const database = useDatabase();

test("a reader that resumes misses nothing while a writer holds its transaction open", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const start = await events.head(db, { orgId: "acme" });
  let second: Promise<void> | undefined;
  await db.transaction().execute(async (first) => {
    await events.append(first, "acme", [{ kind: "test.first", actor: "pinion" }]);
    // The append is sent with it.
    await sql`select`.execute(first);
    // The second write waits for the first commit, so it cannot be visible before the first.
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

test("an event that comes alone gets its number and its time when its org's lock is its own", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const [watcherId, runId] = [newId(), newId()];
  // A packed row, and one that is not.
  for (const event of [{ kind: "run.created", runId, watcherId }, { kind: "test.second" }]) {
    let later: Promise<void> | undefined;
    const { rows } = await db.transaction().execute(async (holder) => {
      await sql`select pg_advisory_xact_lock(${orderOf(sql`'acme'`)})`.execute(holder);
      later = transaction(db, (tx) => events.append(tx, "acme", [{ actor: "pinion", ...event }]));
      await untilSomebodyWaits();
      return sql<{ seq: number; at: Date }>`
        select nextval('event_seq_seq') as seq, clock_timestamp() as at`.execute(holder);
    });
    await later;
    const [written] = await events.listAfter(db, { orgId: "acme", afterSeq: rows[0]!.seq, limit: 1 });
    expect(written).toMatchObject({ kind: event.kind });
    expect(written!.at.getTime()).toBeGreaterThanOrEqual(rows[0]!.at.getTime());
  }
});

test("the events of a transaction are one statement, its last, whenever they were asked for", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const start = await events.head(db, { orgId: "acme" });
  const append = (tx: Db, kind: string) => events.append(tx, "acme", [{ kind, actor: "pinion" }]);
  await transaction(db, async (tx) => {
    await append(tx, "test.first");
    await undoOnFailure(tx, async () => {
      await append(tx, "test.undone");
      throw new Error("undone");
    });
    await undoOnFailure(tx, () => append(tx, "test.second"));
    // Within the open transaction, whose end it is not.
    await transaction(tx, (same) => append(same, "test.third"));
    await sql`select`.execute(tx);
    // Another writer does not wait for the locks that this transaction still takes.
    await transaction(db, (other) => append(other, "test.other"));
  });
  const seen = await events.listAfter(db, { orgId: "acme", afterSeq: start, limit: 10 });
  expect(seen.map(({ kind }) => kind)).toEqual(["test.other", "test.first", "test.second", "test.third"]);
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

test("what every run leaves is stored packed, and read as if it were not: in order, by run, by kind and from any cursor", async () => {
  const { db } = database;
  const { deviceId, watchers, runs } = await seedRuns(db, 70);
  const created = runs.map(({ runId, watcherId }) => ({
    ...{ kind: "run.created", actor: "pinion", runId, watcherId, deviceId },
    data: { scheduled_for: "2026-01-01T00:00:00.000Z" },
  }));
  const completed = runs.map(({ runId, watcherId }, index) => ({
    ...{ kind: "run.completed", actor: `device:${deviceId}`, runId, watcherId, deviceId },
    data: { attempt: index % 2 ? 2 : 1, window_id: runId },
  }));
  // The paused event differs from the created events, and is not merged with them.
  const paused = { kind: "watcher.paused", actor: "pinion", watcherId: watchers[0]! };
  await transaction(db, (tx) => events.append(tx, orgId, [...created, paused]));
  await transaction(db, (tx) => events.append(tx, orgId, completed));

  const all = await events.listAfter(db, { orgId, afterSeq: 0, limit: 1_000 });
  const seqs = all.map((event) => event.seq);
  expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b));
  const ours = all.slice(-141);
  expect(ours.slice(0, 70).map(({ kind, run_id }) => [kind, run_id])).toEqual(
    created.map(({ kind, runId }) => [kind, runId]),
  );
  expect(ours[70]).toMatchObject({ kind: "watcher.paused", run_id: null, watcher_id: watchers[0] });
  const told = (event: events.EventRow) => ({
    ...{ kind: event.kind, actor: event.actor, runId: event.run_id, watcherId: event.watcher_id },
    ...{ deviceId: event.device_id, data: event.data },
  });
  const byRun = (a: { runId?: string | null }, b: { runId?: string | null }) =>
    a.runId! < b.runId! ? -1 : 1;
  expect(ours.slice(0, 70).map(told)).toEqual(created);
  expect(ours.slice(71).map(told).sort(byRun)).toEqual(completed.toSorted(byRun));

  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from event_row where run_ids is not null`.execute(db);
  // Of 70 created events, and of 35 events of each kind: completed at the first attempt, and at the
  // second.
  expect(rows[0]!.count).toBe(3 + 2 + 2);

  for (const limit of [1, 7, 31, 32, 33]) {
    const forward: number[] = [];
    for (let after = 0; ; ) {
      const page = await events.listAfter(db, { orgId, afterSeq: after, limit });
      if (page.length === 0) break;
      forward.push(...page.map((event) => event.seq));
      after = forward.at(-1)!;
    }
    expect(forward).toEqual(seqs);
    const back: number[] = [];
    for (let beforeSeq: number | undefined; ; ) {
      const page = await events.list(db, { orgId, limit, beforeSeq });
      if (page.length === 0) break;
      back.push(...page.map((event) => event.seq));
      beforeSeq = back.at(-1)!;
    }
    expect(back).toEqual(seqs.toReversed());
  }
  const { runId } = runs[40]!;
  expect((await events.list(db, { orgId, runId, limit: 10 })).map(told)).toEqual([
    completed[40],
    created[40],
  ]);
  const [last, first] = await events.list(db, { orgId, runId, limit: 10 });
  expect(await events.list(db, { orgId, runId, limit: 10, beforeSeq: last!.seq })).toEqual([first]);
  expect(await events.list(db, { orgId, runId, limit: 1 })).toEqual([last]);
  expect((await events.list(db, { orgId, kinds: ["run.completed"], limit: 100 })).length).toBe(70);
  expect(await db.selectFrom("event").select("seq").where("run_id", "=", runId).execute()).toHaveLength(2);
});

test("packed events of many orgs, some of runs without a device, keep their own subjects", async () => {
  const { db } = database;
  const orgIds = ["a", "b", "c"];
  for (const one of orgIds) await addTenant(db, one);
  const written = Array.from({ length: 200 }, (_, index) => ({
    ...{ orgId: orgIds[index % 3] as string, kind: "run.created", actor: "pinion" },
    ...{ runId: newId(), watcherId: newId(), deviceId: index % 5 === 0 ? null : newId() },
    data: { scheduled_for: index % 2 ? "2026-01-01T00:00:00.000Z" : "2026-01-02T00:00:00.000Z" },
  }));
  const paused = { orgId: "b", kind: "watcher.paused", actor: "pinion", watcherId: newId() };
  await transaction(db, (tx) =>
    events.appendAll(tx, [...written.slice(0, 100), paused, ...written.slice(100)]),
  );
  const byRun = (a: { runId: string | null }, b: { runId: string | null }) => (a.runId! < b.runId! ? -1 : 1);
  for (const one of orgIds) {
    const found = (await events.list(db, { orgId: one, limit: 100, kinds: ["run."] })).map((event) => ({
      ...{ orgId: event.org_id, kind: event.kind, actor: event.actor, runId: event.run_id },
      ...{ watcherId: event.watcher_id, deviceId: event.device_id, data: event.data },
    }));
    const ours = written.filter(({ orgId }) => orgId === one);
    expect(found.sort(byRun)).toEqual(ours.toSorted(byRun));
  }
});

/** Runs that began and ended now, each of a separate watcher; their events are left to the test. */
async function seedRuns(db: Db, count: number) {
  const { deviceId } = await seedDevice(db);
  const runs: { runId: string; watcherId: string }[] = [];
  const watchers: string[] = [];
  for (let index = 0; index < count; index++) {
    runs.push({ runId: newId(), watcherId: newId() });
    watchers.push(runs[index]!.watcherId);
  }
  for (const { runId, watcherId } of runs) {
    await sql`insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
        notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt, reason,
        past_attempts)
      values (${orgId}, ${runId}, ${watcherId}, 1, 'a', 1, ${deviceId}, '', 'none', 'scheduled', now() - interval '1 h', now(),
        now(), now(), 1, 1, 'completed', 1, '', '[]')`.execute(db);
  }
  return { deviceId, watchers, runs };
}

/** Waits until another connection waits for a lock. */
async function untilSomebodyWaits(): Promise<void> {
  for (;;) {
    const { rows } = await sql<{ waiting: boolean }>`
      select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock') as waiting`.execute(database.db);
    if (rows[0]!.waiting) return;
  }
}

test("an event that comes alone is stored as it would be among others", async () => {
  const { db } = database;
  const { deviceId, runs } = await seedRuns(db, 1);
  const [{ runId, watcherId }] = runs as [{ runId: string; watcherId: string }];
  const subjects = { runId, watcherId, deviceId };
  const kinds: Omit<events.NewEvent, "orgId">[] = [
    { kind: "run.created", actor: "pinion", ...subjects, data: { scheduled_for: null } },
    {
      kind: "run.completed",
      actor: `device:${deviceId}`,
      ...subjects,
      data: { attempt: 1, window_id: runId },
    },
    { kind: "run.failed", actor: `device:${deviceId}`, ...subjects, data: { reason: 'it said "no"' } },
    { kind: "org.updated", actor: "user:x" },
  ];
  const stored = async (after: number) =>
    (
      await sql`select to_jsonb(e) - '{seq,seqs,at}'::text[] || jsonb_build_object('count', cardinality(seqs),
        'isLast', seq = seqs[cardinality(seqs)]) as row from event_row e where seq > ${after} order by seq`.execute(
        db,
      )
    ).rows;
  for (const event of kinds) {
    const before = await events.head(db, { orgId });
    await transaction(db, (tx) => events.append(tx, orgId, [event]));
    const alone = await stored(before);
    const between = await events.head(db, { orgId });
    const other = { kind: "org.other", actor: "user:x" };
    await transaction(db, (tx) => events.append(tx, orgId, [event, other]));
    expect(alone).toEqual((await stored(between)).slice(0, 1));
  }
});
