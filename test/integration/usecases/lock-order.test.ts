/**
 * Two transactions take their locks in one order: members, devices, grants, hooks, runs, turns,
 * watchers, agents; and destinations, deliveries. Each test holds the first lock of one
 * transaction, and has the other transaction wait for it; the lock that the first one takes next
 * has to be free. (`support/deadlocks.ts` finds what is left.)
 */
import { randomUUID } from "node:crypto";
import { type RawBuilder, sql } from "kysely";
import { beforeEach, expect, test } from "vitest";
import { trigger } from "../../../src/scheduler/starts/triggers.ts";
import * as agentEdits from "../../../src/store/agents/agent-edits.ts";
import * as devices from "../../../src/store/people/devices/devices.ts";
import * as joinCodes from "../../../src/store/people/devices/join-codes.ts";
import * as roles from "../../../src/store/people/orgs/members.ts";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import * as deliveries from "../../../src/store/work/messages/deliveries.ts";
import * as restorations from "../../../src/store/work/runs/restorations.ts";
import * as events from "../../../src/store/work/service/events.ts";
import { orderOf } from "../../../src/store/work/service/lone-events.ts";
import * as retention from "../../../src/store/work/service/retention.ts";
import * as hooks from "../../../src/store/work/watchers/hooks.ts";
import { valuesOf, type WatcherValues } from "../../../src/store/work/watchers/watcher-values.ts";
import * as deviceRemovals from "../../../src/usecases/devices.ts";
import { enroll } from "../../../src/usecases/enrolments.ts";
import * as members from "../../../src/usecases/members.ts";
import * as watchers from "../../../src/usecases/watchers.ts";
import { useDatabase } from "../../support/database.ts";
import { requireOrder } from "../../support/lock-order.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import { watcherValues } from "../../support/rows.ts";
import { surroundings } from "../../support/surroundings.ts";
import { addDevice, addTenant } from "../../support/tenants.ts";

const database = useDatabase();
const orgId = "acme";
const actor = "pinion";
const agent = { orgId, agentId: "pinion-default" };
let bob: { orgId: string; userId: string };
let laptop: { deviceId: string };
let desktop: { deviceId: string };

beforeEach(async () => {
  const { db } = database;
  await addTenant(db, orgId);
  const { member } = await addMember("bob@x.example");
  bob = { orgId, userId: member.userId };
  laptop = await addDevice(db, bob);
  desktop = await addDevice(db, bob);
});

function addWatcher(change: Partial<WatcherValues>, by = actor) {
  const values: WatcherValues = { ...watcherValues, name: "Nightly", prompt: "look", ...change };
  const wanted = { orgId, actor: by, slug: `nightly-${randomUUID()}`, requestId: "", values };
  return watchers.create(database.db, wanted, surroundings);
}

/** Removes the member from the org. */
const leave = () =>
  members.remove(database.db, { ...bob, actor, caller: null, endsServices: false }, surroundings);

const removeLaptop = () =>
  deviceRemovals.remove(database.db, { orgId, deviceId: laptop.deviceId, actor }, surroundings);

const addMember = (email: string) =>
  members.add(
    database.db,
    {
      ...{ caller: null, requestId: "", orgId, email, name: "", tokenScopes: [], actor },
      role: "member",
    },
    surroundings,
  );

const grantLaptop = (userId: string) =>
  sql`insert into device_grant (org_id, device_id, permission, user_id, granted_by)
    values (${orgId}, ${laptop.deviceId}, 'use', ${userId}, 'pinion')`.execute(database.db);

const editAgent = (change: Partial<agentEdits.AgentValues>) =>
  agentEdits.update(database.db, {
    ...{ ...agent, actor, expectedVersion: 0, isDryRun: false },
    change: (current) => ({ ...current, ...change }),
  });

/**
 * Takes the first lock, has `other` wait for it, takes the second lock at once, and lets `other` go
 * on.
 */
async function inOneOrder(locks: {
  first: (tx: Db) => Promise<unknown>;
  second: RawBuilder<unknown>;
  other: () => Promise<unknown>;
}) {
  await using held = await hold(database.db);
  await locks.first(held.tx);
  await held.sent();
  const done = locks.other();
  await untilBlocked(database.db);
  await sql`${locks.second} for update nowait`.execute(held.tx);
  await held.commit();
  await done;
}

test("a watcher that is deleted while its hook takes a delivery", async () => {
  const { id: watcherId } = await addWatcher({});
  const id = randomUUID();
  const values = { kind: "bearer", filter: "", mapping: "", ratePerMinute: 60, isDisabled: false } as const;
  const made = { ...values, orgId, id, slug: "push", watcherId, secret: "sealed", createdBy: actor };
  expect(await hooks.insert(database.db, made)).toBe(true);
  await inOneOrder({
    first: (tx) => hooks.lock(tx, { orgId, id }),
    second: sql`select from watcher where id = ${watcherId}`,
    other: () => watchers.remove(database.db, { orgId, watcher: watcherId, actor }, surroundings),
  });
});

test("a watcher that is pinned to another device of a member who leaves", async () => {
  const { id: watcherId } = await addWatcher({ deviceId: laptop.deviceId });
  await inOneOrder({
    first: (tx) => roles.lock(tx, bob),
    second: sql`select from watcher where id = ${watcherId}`,
    other: () =>
      watchers.update(
        database.db,
        {
          ...{ orgId, actor, watcher: watcherId, expectedVersion: 0, isPinDecided: true },
          change: (current) => ({ ...valuesOf(current), deviceId: desktop.deviceId }),
        },
        surroundings,
      ),
  });
});

test("an agent that is pinned to a device of its owner, who leaves", async () => {
  await editAgent({ ownerId: bob.userId });
  await inOneOrder({
    first: (tx) => roles.lock(tx, bob),
    second: sql`select from agent where id = ${agent.agentId}`,
    other: () => editAgent({ deviceId: laptop.deviceId, noExecutorReason: "" }),
  });
});

test("a member who leaves while the device is deleted to which an agent of the member is pinned", async () => {
  await editAgent({ ownerId: bob.userId, deviceId: laptop.deviceId, noExecutorReason: "" });
  await inOneOrder({
    first: (tx) => devices.lock(tx, { orgId, deviceId: laptop.deviceId }),
    second: sql`select from agent where id = ${agent.agentId}`,
    other: leave,
  });
});

test("a member who leaves while a device of the member is deleted", async () => {
  await inOneOrder({
    first: (tx) => devices.lock(tx, { orgId, deviceId: laptop.deviceId }),
    second: sql`select from token where device_id = ${laptop.deviceId}`,
    other: leave,
  });
});

test("a device that enrols by the code of a member who leaves", async () => {
  const code = { ...bob, expiresInMs: 60_000, tokenId: null, actor };
  const { code: joinCode } = await joinCodes.create(database.db, code);
  const asked = { joinCode, installId: randomUUID(), os: "linux", label: "late", appVersion: "" } as const;
  await inOneOrder({
    first: (tx) => roles.lock(tx, bob),
    second: sql`select from join_code where user_id = ${bob.userId} and used_at is null`,
    other: () => enroll(database.db, asked, surroundings),
  });
});

test("a member who leaves while a device is deleted on which the member has a grant", async () => {
  const { member: carol } = await addMember("carol@x.example");
  await grantLaptop(carol.userId);
  const { id: watcherId } = await addWatcher({ deviceId: laptop.deviceId });
  // Carol's removal holds her grant, and goes on to the watchers.
  await inOneOrder({
    first: (tx) => sql`select from device_grant where user_id = ${carol.userId} for update`.execute(tx),
    second: sql`select from watcher where id = ${watcherId}`,
    other: removeLaptop,
  });
});

test("a member who leaves, with a grant on a device of the member that is deleted", async () => {
  await grantLaptop(bob.userId);
  await inOneOrder({
    first: (tx) => devices.lock(tx, { orgId, deviceId: laptop.deviceId }),
    second: sql`select from device_grant where user_id = ${bob.userId}`,
    other: leave,
  });
});

/**
 * Has `change` wait for a watcher, while the watcher gets a run whose completion then waits for the
 * watcher: the change must not hold the watcher when it waits for the run.
 */
async function withLateRun(change: (watcherId: string) => Promise<unknown>) {
  const { db } = database;
  const { id: watcherId } = await addWatcher({ deviceId: laptop.deviceId });
  const { run } = await trigger(db, { orgId, watcherId, actor }, surroundings);
  await sql`create table put_off as select * from run`.execute(db);
  await sql`delete from run`.execute(db);
  await using recorder = await hold(db);
  await sql`select from watcher where id = ${watcherId} for update`.execute(recorder.tx);
  await recorder.sent();
  const done = change(watcherId);
  await untilBlocked(db);
  await sql`insert into run select * from put_off`.execute(db);
  await using completion = await hold(db);
  const { rows } = await sql<{ pid: number }>`
    select pg_backend_pid() as pid from run where id = ${run.id} for update`.execute(completion.tx);
  await recorder.commit();
  const blocked = sql`select from pg_stat_activity where ${rows[0]?.pid} = any(pg_blocking_pids(pid))`;
  await expect
    .poll(async () => (await blocked.execute(db)).rows.length, { interval: 5, timeout: 10_000 })
    .toBe(1);
  await sql`select from watcher where id = ${watcherId} for no key update nowait`.execute(completion.tx);
  await completion.commit();
  await done;
  expect((await sql`select from run`.execute(db)).rows).toHaveLength(0);
}

test("a watcher that is deleted while it gets a run that ends", () =>
  withLateRun((watcher) => watchers.remove(database.db, { orgId, watcher, actor }, surroundings)));

test("a device that is deleted while a watcher of it gets a run that ends", () => withLateRun(removeLaptop));

test("a member who leaves while a watcher of the member's device gets a run that ends", () =>
  withLateRun(leave));

test("a result that its device offers again while the watcher's run ends", async () => {
  const { id: watcherId } = await addWatcher({ deviceId: laptop.deviceId });
  const { run } = await trigger(database.db, { orgId, watcherId, actor }, surroundings);
  const { windowStart, windowEnd } = run;
  const forgotten = {
    ...{ orgId, watcherId, runId: run.id, deviceId: laptop.deviceId, attemptToken: randomUUID(), attempt: 1 },
    ...{ source: "manual" as const, scheduledFor: null, windowStart, windowEnd },
  };
  await inOneOrder({
    first: (tx) => sql`select from run where id = ${run.id} for update`.execute(tx),
    second: sql`select from watcher where id = ${watcherId}`,
    other: () => transaction(database.db, (tx) => restorations.restore(tx, forgotten)),
  });
});

test("a result that its device offers again while a late result of the same run is stored", async () => {
  const { db } = database;
  const { id: watcherId } = await addWatcher({ deviceId: laptop.deviceId });
  const { run } = await trigger(db, { orgId, watcherId, actor }, surroundings);
  const { windowStart, windowEnd } = run;
  const forgotten = {
    ...{ orgId, watcherId, runId: run.id, deviceId: laptop.deviceId, attemptToken: randomUUID(), attempt: 1 },
    ...{ source: "manual" as const, scheduledFor: null, windowStart, windowEnd },
  };
  await sql`delete from run where id = ${run.id}`.execute(db);
  await transaction(db, (tx) => restorations.restore(tx, forgotten));
  await inOneOrder({
    first: (tx) => sql`select from run_finished where id = ${run.id} for update`.execute(tx),
    second: sql`select from watcher where id = ${watcherId}`,
    other: () =>
      transaction(db, (tx) => restorations.restore(tx, { ...forgotten, attemptToken: randomUUID() })),
  });
});

/** Whether another transaction could append an event of the org at once. */
async function isEventLockFree(): Promise<boolean> {
  const { rows } = await sql<{ isFree: boolean }>`
    select pg_try_advisory_xact_lock(${orderOf(sql`${orgId}::text`)}) as "isFree"`.execute(database.db);
  return rows[0]?.isFree ?? false;
}

test("a member who leaves waits for an agent of the member before the org's events are locked", async () => {
  const { member: carol } = await addMember("carol@x.example");
  const desk = await addDevice(database.db, { orgId, userId: carol.userId });
  // Paused for the departure, with an event of its own.
  await addWatcher({ deviceId: desk.deviceId }, `user:${bob.userId}`);
  await editAgent({ ownerId: bob.userId });
  await using held = await hold(database.db);
  await sql`select from agent where id = ${agent.agentId} for update`.execute(held.tx);
  const left = leave();
  await untilBlocked(database.db);
  expect(await isEventLockFree()).toBe(true);
  await held.commit();
  await left;
  const kinds = (await events.list(database.db, { orgId, limit: 20 })).map(({ kind }) => kind);
  expect(kinds).toEqual(expect.arrayContaining(["watcher.paused", "agent.updated", "member.removed"]));
});

test("a transaction that locks tables in a wrong order fails its test", async () => {
  await transaction(database.db, async (tx) => {
    await sql`update agent set updated_at = now()`.execute(tx);
    await sql`select from watcher for update skip locked`.execute(tx);
    expect(() => requireOrder()).not.toThrow();
    await sql`select w.id from watcher w join device d on d.id = w.device_id for no key update of w`.execute(
      tx,
    );
  });
  expect(() => requireOrder()).toThrow(/watcher is locked after agent:\nupdate agent/);
});

/** A destination, and a delivery to it under a try's lease. */
async function addDelivery() {
  const name = { orgId, id: randomUUID(), destinationId: randomUUID(), leaseToken: randomUUID() };
  await sql`insert into destination (org_id, id, slug, name, kind)
    values (${orgId}, ${name.destinationId}, ${name.destinationId}, 'Ops', 'webhook')`.execute(database.db);
  await sql`insert into delivery (org_id, id, destination_id, lane, kind, lease_token)
    values (${orgId}, ${name.id}, ${name.destinationId}, ${name.id}, 'run.ended', ${name.leaseToken})`.execute(
    database.db,
  );
  return name;
}

test("a destination that is deleted while a delivery to it ends", async () => {
  const { id, destinationId, leaseToken } = await addDelivery();
  const ending = {
    orgId,
    id,
    destinationId,
    leaseToken,
    state: "delivered",
    status: 200,
    error: "",
  } as const;
  await inOneOrder({
    first: (tx) => sql`select from destination where id = ${destinationId} for update`.execute(tx),
    second: sql`select from delivery where id = ${id}`,
    other: () => deliveries.end(database.db, ending),
  });
});

test("retention waits for no removal, which deletes the same rows in another order", async () => {
  const { id } = await addDelivery();
  await sql`update delivery set state = 'dead', ended_at = now(), created_at = now() - interval '99 days'`.execute(
    database.db,
  );
  const look = () => sql`select from delivery where id = ${id}`.execute(database.db);
  await using removal = await hold(database.db);
  await sql`select from delivery where id = ${id} for update`.execute(removal.tx);
  await retention.deleteOld(database.db, { days: 30, conversationDays: 30 });
  expect((await look()).rows).toHaveLength(1);
  await removal.commit();
  await retention.deleteOld(database.db, { days: 30, conversationDays: 30 });
  expect((await look()).rows).toHaveLength(0);
});

test("a pause neither locks nor waits for a run that it leaves, so no claim passes that run by", async () => {
  const { id: watcherId } = await addWatcher({ deviceId: laptop.deviceId });
  const { run } = await trigger(database.db, { orgId, watcherId, actor }, surroundings);
  await using claim = await hold(database.db);
  await sql`select from run where id = ${run.id} for update`.execute(claim.tx);
  const asked = { orgId, watcher: watcherId, actor, reason: "later" };
  expect(await watchers.pause(database.db, asked, surroundings)).toMatchObject({ status: "paused" });
});
