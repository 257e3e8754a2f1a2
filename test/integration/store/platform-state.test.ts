/** The StateAdapter of the Chat SDK on PostgreSQL, as the SDK's rules ask, on two replicas. */
import { sql } from "kysely";
import { beforeEach, expect, test } from "vitest";
import { createState } from "../../../src/server/platforms/lines/state.ts";
import * as agents from "../../../src/store/agents/agents.ts";
import { listItemsMax, valueBytesMax } from "../../../src/store/agents/platform-state.ts";
import { deleteOld } from "../../../src/store/work/service/retention.ts";
import { useDatabase } from "../../support/database.ts";
import { addTenant } from "../../support/tenants.ts";

const database = useDatabase({ per: "file" });
let count = 0;
let stableId: string;

beforeEach(async () => {
  if (count === 0) {
    await addTenant(database.db, "acme");
    await agents.ensure(database.db, {
      ...{ orgId: "acme", agentId: "helper", name: "Helper", ownerId: null, settings: {} },
    });
  }
  stableId = `chat-${count++}`;
  await sql`insert into platform (org_id, stable_id, agent_id, kind, status)
    values ('acme', ${stableId}, 'helper', 'telegram', 'stopped')`.execute(database.db);
});

/** The state as two replicas have it. */
function two() {
  const make = () => createState(database.db, { orgId: "acme", stableId }, { hasThreads: true });
  return [make(), make()] as const;
}

/** Entries of the platform are over from now on. */
const expire = () =>
  sql`update platform_state set expires_at = now() - interval '1 s'
    where stable_id = ${stableId} and expires_at is not null`.execute(database.db);

test("a value is shared, lasts its time, and is set once by many at once", async () => {
  const [here, there] = two();
  await here.set("k", { n: 1, text: "a\u0000b" }, 60_000);
  expect(await there.get("k")).toEqual({ n: 1, text: "a\ufffdb" });
  const tries = await Promise.all(
    Array.from({ length: 20 }, (_, n) => [here, there][n % 2]!.setIfNotExists("once", n, 60_000)),
  );
  expect(tries.filter(Boolean)).toHaveLength(1);
  await expire();
  expect(await here.get("k")).toBeNull();
  expect(await there.setIfNotExists("once", "again", 60_000)).toBe(true);
  await here.delete("once");
  expect(await there.get("once")).toBeNull();
  await expect(here.set("big", "x".repeat(valueBytesMax))).rejects.toThrow("at most");
});

test("a lock has one holder; its token alone extends and releases it; a lock that is over is taken", async () => {
  const [here, there] = two();
  const locks = await Promise.all(
    Array.from({ length: 20 }, (_, n) => [here, there][n % 2]!.acquireLock("t", 60_000)),
  );
  const held = locks.filter((lock) => lock !== null);
  expect(held).toHaveLength(1);
  const [mine] = held;
  expect(mine!.expiresAt).toBeGreaterThan(Date.now());
  const foreign = { ...mine!, token: "00000000-0000-4000-8000-000000000000" };
  expect(await there.extendLock(foreign, 60_000)).toBe(false);
  await there.releaseLock(foreign);
  expect(await there.acquireLock("t", 60_000)).toBeNull();
  expect(await here.extendLock(mine!, 60_000)).toBe(true);
  await expire();
  expect(await here.extendLock(mine!, 60_000)).toBe(false);
  const next = await there.acquireLock("t", 60_000);
  expect(next).not.toBeNull();
  await here.releaseLock(mine!);
  expect(await here.acquireLock("t", 60_000)).toBeNull();
  await here.forceReleaseLock("t");
  expect(await here.acquireLock("t", 60_000)).not.toBeNull();
});

test("a list keeps the newest items, and what many append at once is all there", async () => {
  const [here, there] = two();
  await Promise.all(
    Array.from({ length: 20 }, (_, n) => [here, there][n % 2]!.appendToList("all", n, { ttlMs: 60_000 })),
  );
  expect((await here.getList<number>("all")).sort((a, b) => a - b)).toEqual(
    Array.from({ length: 20 }, (_, n) => n),
  );
  for (const n of [1, 2, 3, 4, 5]) await here.appendToList("few", n, { maxLength: 3, ttlMs: 60_000 });
  expect(await there.getList("few")).toEqual([3, 4, 5]);
  await here.appendToList("bounded", 0, { maxLength: listItemsMax * 10 });
  await expire();
  expect(await there.getList("few")).toEqual([]);
  await here.appendToList("few", 9, { maxLength: 3 });
  expect(await there.getList("few")).toEqual([9]);
  expect(await there.getList("none")).toEqual([]);
});

test("a queue gives each item once, in order, drops the oldest beyond its bound, and items that are over", async () => {
  const [here, there] = two();
  const entry = (n: number, expiresAt = Date.now() + 60_000) =>
    ({ enqueuedAt: n, expiresAt, message: { id: String(n) } }) as never;
  for (const n of [1, 2, 3, 4]) expect(await here.enqueue("q", entry(n), 3)).toBe(Math.min(n, 3));
  expect(await there.queueDepth("q")).toBe(3);
  const taken = await Promise.all([
    here.dequeue("q"),
    there.dequeue("q"),
    here.dequeue("q"),
    there.dequeue("q"),
  ]);
  const ids = taken.flatMap((one) => (one ? [Number((one.message as { id: string }).id)] : []));
  expect(ids.sort()).toEqual([2, 3, 4]);
  await here.enqueue("q", entry(5, Date.now() - 1), 3);
  await here.enqueue("q", entry(6), 3);
  expect(await there.dequeue("q")).toMatchObject({ message: { id: "6" } });
  expect(await there.dequeue("q")).toBeNull();
});

test("subscriptions are shared, and end", async () => {
  const [here, there] = two();
  expect(await here.isSubscribed("t")).toBe(false);
  await here.subscribe("t");
  expect(await there.isSubscribed("t")).toBe(true);
  await there.unsubscribe("t");
  expect(await here.isSubscribed("t")).toBe(false);
});

test("keys that would drop a message before it is stored are never found", async () => {
  const [here] = two();
  expect(await here.setIfNotExists("dedupe:slack:1", true, 60_000)).toBe(true);
  expect(await here.setIfNotExists("dedupe:slack:1", true, 60_000)).toBe(true);
  await here.set("slack:event-delivered:E1", true);
  expect(await here.get("slack:event-delivered:E1")).toBeNull();
});

test("what is over goes with retention, and everything goes with its platform", async () => {
  const [here] = two();
  await here.set("over", 1, 60_000);
  await here.set("stays", 1);
  await expire();
  await deleteOld(database.db, { days: 30, conversationDays: 30 });
  const keys = async () =>
    (
      await sql<{ key: string }>`select key from platform_state where stable_id = ${stableId}`.execute(
        database.db,
      )
    ).rows.map(({ key }) => key);
  expect(await keys()).toEqual(["stays"]);
  await sql`delete from platform where stable_id = ${stableId}`.execute(database.db);
  expect(await keys()).toEqual([]);
});
