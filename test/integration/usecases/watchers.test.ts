import { sql } from "kysely";
import { beforeEach, expect, test } from "vitest";
import { jitterOf } from "../../../src/scheduler/schedule/schedule.ts";
import { trigger } from "../../../src/scheduler/starts/triggers.ts";
import type { Db } from "../../../src/store/pg/database.ts";
import * as events from "../../../src/store/work/service/events.ts";
import { valuesOf, type WatcherValues } from "../../../src/store/work/watchers/watcher-values.ts";
import * as watchers from "../../../src/store/work/watchers/watchers.ts";
import { remove as removeDevice } from "../../../src/usecases/devices.ts";
import * as usecases from "../../../src/usecases/watchers.ts";
import { useDatabase } from "../../support/database.ts";
import { watcherValues } from "../../support/rows.ts";
import { surroundings } from "../../support/surroundings.ts";
import { addDevice, addTenant, type Tenant } from "../../support/tenants.ts";

const database = useDatabase();
let db: Db;
let tenant: Tenant;

beforeEach(async () => {
  db = database.db;
  tenant = await addTenant(db, "acme");
});

const values: WatcherValues = {
  ...watcherValues,
  ...{ name: "Nightly", prompt: "look", schedule: "0 3 * * *" },
};

function add(slug: string, changes: Partial<WatcherValues> = {}, requestId = "") {
  const wanted = { orgId: "acme", actor: "user:x", slug, requestId, values: { ...values, ...changes } };
  return usecases.create(db, wanted, surroundings);
}

function edit(watcher: string, change: Partial<WatcherValues>, options: { expectedVersion?: number } = {}) {
  const asked = {
    orgId: "acme",
    actor: "user:x",
    watcher,
    expectedVersion: options.expectedVersion ?? 0,
    change: (current: watchers.Watcher) => ({ ...valuesOf(current), ...change }),
    isPinDecided: "deviceId" in change,
  };
  return usecases.update(db, asked, surroundings);
}

const asked = (watcher: string) => ({ orgId: "acme", watcher, actor: "user:x" });
const pause = (watcher: string) => usecases.pause(db, { ...asked(watcher), reason: "later" }, surroundings);
const resume = (watcher: string) => usecases.resume(db, asked(watcher), surroundings);

async function kinds(): Promise<string[]> {
  return (await events.list(db, { orgId: "acme", limit: 50, kinds: ["watcher.", "run."] })).map(
    (event) => event.kind,
  );
}

test("a watcher gets the org's default agent and its first slot, and is found by id and by slug", async () => {
  const watcher = await add("nightly", { jitterMs: 600_000 });
  expect(watcher).toMatchObject({ agent_id: "pinion-default", version: 1, status: "active", prompt: "look" });
  expect(watcher.next_slot_at!.toISOString()).toMatch(/T03:00:00.000Z$/);
  expect(watcher.next_due_at!.getTime() - watcher.next_slot_at!.getTime()).toBe(
    jitterOf(watcher.id, 600_000),
  );
  expect(await watchers.get(db, { orgId: "acme", watcher: watcher.id })).toEqual(watcher);
  expect(await watchers.get(db, { orgId: "acme", watcher: "nightly" })).toEqual(watcher);
  await addTenant(db, "other");
  await expect(watchers.get(db, { orgId: "other", watcher: watcher.id })).rejects.toMatchObject({
    reason: "not_found",
  });
});

test("ten equal creations at once with one request id make one watcher", async () => {
  const made = await Promise.all(Array.from({ length: 10 }, () => add("nightly", {}, "request-1")));
  expect(new Set(made.map((watcher) => watcher.id)).size).toBe(1);
  expect(await kinds()).toEqual(["watcher.created"]);
});

test("a slug is taken once", async () => {
  await add("nightly");
  await expect(add("nightly")).rejects.toMatchObject({ reason: "already_exists", field: "slug" });
});

test("an agent or a device that the org does not have is not found", async () => {
  await expect(add("a", { agentId: "nobody" })).rejects.toMatchObject({ reason: "not_found" });
  const other = await addTenant(db, "other");
  const { deviceId } = await addDevice(db, other);
  await expect(add("b", { deviceId })).rejects.toMatchObject({ reason: "not_found" });
  await db.updateTable("org").set({ default_agent_id: null }).where("id", "=", "acme").execute();
  await expect(add("c")).rejects.toMatchObject({ reason: "not_found" });
});

test("an edit makes a new revision and leaves the old one for the runs that point to it", async () => {
  const watcher = await add("nightly");
  const edited = await edit("nightly", { prompt: "look again", extractionSchema: { type: "object" } });
  expect(edited).toMatchObject({ version: 2, prompt: "look again", extraction_schema: { type: "object" } });
  expect(edited.next_slot_at).toEqual(watcher.next_slot_at);
  const revisions = await db
    .selectFrom("watcher_revision")
    .select(["version", "prompt"])
    .orderBy("version")
    .execute();
  expect(revisions).toEqual([
    { version: 1, prompt: "look" },
    { version: 2, prompt: "look again" },
  ]);
  const [event] = await events.list(db, { orgId: "acme", limit: 1 });
  expect(event!.data).toMatchObject({
    version: 2,
    changed: ["prompt", "extraction_schema"],
    changes: { prompt: { to: "look again" }, extraction_schema: { from: null, to: { type: "object" } } },
  });
});

test("an edit that changes nothing writes nothing", async () => {
  await add("nightly", { extractionSchema: { b: 1, a: { d: 1, c: 2 } } });
  const same = await edit("nightly", { extractionSchema: { a: { c: 2, d: 1 }, b: 1 } });
  expect(same.version).toBe(1);
  expect(await kinds()).toEqual(["watcher.created"]);
});

test("an edit of a version that was overtaken is aborted; of two at once, one wins", async () => {
  await add("nightly");
  const results = await Promise.allSettled([
    edit("nightly", { name: "A" }, { expectedVersion: 1 }),
    edit("nightly", { name: "B" }, { expectedVersion: 1 }),
  ]);
  expect(results.map((result) => result.status).sort()).toEqual(["fulfilled", "rejected"]);
  expect(results.find((result) => result.status === "rejected")?.reason).toMatchObject({ reason: "aborted" });
});

test("an edit that waited for another one sees what that one wrote", async () => {
  await add("nightly");
  await Promise.all(Array.from({ length: 8 }, (_, i) => edit("nightly", { name: `N${i}` })));
  expect((await watchers.get(db, { orgId: "acme", watcher: "nightly" })).version).toBe(9);
});

test("slots that are due are recorded under the old schedule before it is edited, paused or resumed", async () => {
  const { id } = await add("nightly", { schedule: "@hourly", overlap: "skip" });
  /** Makes the slot so many hours ago due. */
  const due = async (hours: number) => {
    const at = new Date(Math.floor(Date.now() / 3_600_000 - hours) * 3_600_000);
    await sql`update schedule_position set next_slot_at = ${at}, next_due_at = ${at} where watcher_id = ${id}`.execute(
      db,
    );
  };
  await due(3);
  await edit("nightly", { schedule: "0 4 * * *", name: "Later" });
  await sql`update watcher set schedule = '@hourly' where id = ${id}`.execute(db);
  await due(5);
  await pause(id);
  await resume(id);
  const versions = await db.selectFrom("run").select("watcher_version").execute();
  expect(versions).toEqual([{ watcher_version: 1 }]);
  const all = (await kinds()).toReversed();
  expect(all.filter((kind, index) => kind !== all[index - 1])).toEqual([
    "watcher.created",
    "run.skipped",
    "run.created",
    "watcher.updated",
    "run.skipped",
    "watcher.paused",
    "watcher.resumed",
  ]);
});

test("a paused watcher has no next slot, also after its schedule was edited, until it is resumed", async () => {
  await add("nightly");
  expect(await pause("nightly")).toMatchObject({
    status: "paused",
    paused_reason: "later",
    next_slot_at: null,
    version: 1,
  });
  expect(await pause("nightly")).toMatchObject({ status: "paused" });
  expect(await edit("nightly", { schedule: "30 5 * * *" })).toMatchObject({
    status: "paused",
    next_slot_at: null,
  });
  await sql`update watcher set consecutive_failures = 7, backoff_until = now() + interval '1 hour'`.execute(
    db,
  );
  const resumed = await resume("nightly");
  expect(resumed).toMatchObject({
    status: "active",
    paused_reason: "",
    consecutive_failures: 0,
    backoff_until: null,
  });
  expect(resumed.next_slot_at!.toISOString()).toMatch(/T05:30:00.000Z$/);
  expect((await kinds()).filter((kind) => kind === "watcher.paused")).toHaveLength(1);
});

test("a schedule that is cleared stops, one that is set starts, and a new jitter moves only when the slot is due", async () => {
  await add("nightly");
  expect(await edit("nightly", { schedule: null })).toMatchObject({ next_slot_at: null, next_due_at: null });
  const set = await edit("nightly", { schedule: "0 9 * * *", timeZone: "Europe/Berlin" });
  expect(set.next_slot_at).not.toBeNull();
  const jittered = await edit("nightly", { jitterMs: 3_600_000 });
  expect(jittered.next_slot_at).toEqual(set.next_slot_at);
  expect(jittered.next_due_at!.getTime()).toBe(set.next_slot_at!.getTime() + jitterOf(set.id, 3_600_000));
});

test("a watcher whose device was deleted is neither paused nor resumed, until somebody decides on its pin", async () => {
  const { deviceId } = await addDevice(db, tenant, { os: "ios" });
  await add("nightly", { deviceId });
  await removeDevice(db, { orgId: "acme", deviceId, actor: "user:x" }, surroundings);
  await expect(pause("nightly")).rejects.toMatchObject({
    reason: "failed_precondition",
  });
  await expect(resume("nightly")).rejects.toMatchObject({
    reason: "failed_precondition",
  });
  expect(await edit("nightly", { name: "Still an orphan" })).toMatchObject({
    status: "no_executor",
    version: 3,
  });
  // Unpinned on purpose, although the pin is empty already.
  expect(await edit("nightly", { deviceId: null })).toMatchObject({
    status: "active",
    paused_reason: "",
    version: 4,
  });
});

test("a device that is deleted while a watcher is being pinned to it leaves no watcher pinned to nothing", async () => {
  const { deviceId } = await addDevice(db, tenant, { os: "ios" });
  const results = await Promise.allSettled([
    ...Array.from({ length: 6 }, (_, i) => add(`w${i}`, { deviceId })),
    removeDevice(db, { orgId: "acme", deviceId, actor: "user:x" }, surroundings),
  ]);
  for (const result of results) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ reason: "not_found" });
  }
  const all = await watchers.list(db, { orgId: "acme", limit: 10 });
  expect(all.every((watcher) => watcher.device_id === null && watcher.status === "no_executor")).toBe(true);
});

test("a watcher is removed with its revisions, and its waiting run ends", async () => {
  const { id } = await add("nightly");
  const { run } = await trigger(db, { orgId: "acme", watcherId: id, actor: "user:x" }, surroundings);
  const { settled } = await usecases.remove(db, asked("nightly"), surroundings);
  const reason = "the watcher was deleted";
  expect(settled).toMatchObject([{ runId: run.id, status: "cancelled", reason }]);
  expect(await watchers.find(db, { orgId: "acme", watcher: id })).toBeUndefined();
  expect(await db.selectFrom("watcher_revision").selectAll().execute()).toEqual([]);
});

test("lists go by slug, page by page, of all or of one device", async () => {
  const { deviceId } = await addDevice(db, tenant, { os: "ios" });
  for (const slug of ["c", "a", "d", "b"]) await add(slug, slug < "c" ? { deviceId } : {});
  const slugs = async (options: object) =>
    (await watchers.list(db, { orgId: "acme", limit: 3, ...options })).map((watcher) => watcher.slug);
  expect(await slugs({})).toEqual(["a", "b", "c"]);
  expect(await slugs({ afterSlug: "c" })).toEqual(["d"]);
  expect(await slugs({ deviceId })).toEqual(["a", "b"]);
});
