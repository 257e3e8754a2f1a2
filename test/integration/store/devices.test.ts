import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { matches } from "../../../src/cel/selector.ts";
import * as credentials from "../../../src/store/people/credentials/credentials.ts";
import * as deviceLists from "../../../src/store/people/devices/device-lists.ts";
import * as devices from "../../../src/store/people/devices/devices.ts";
import * as hellos from "../../../src/store/people/devices/hellos.ts";
import * as joinCodes from "../../../src/store/people/devices/join-codes.ts";
import * as events from "../../../src/store/work/service/events.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import * as watchers from "../../../src/store/work/watchers/watchers.ts";
import { remove as removeDevice } from "../../../src/usecases/devices.ts";
import { enroll } from "../../../src/usecases/enrolments.ts";
import { remove as removeWatcher } from "../../../src/usecases/watchers.ts";
import { secretHash, tokenKind } from "../../../src/values/ids.ts";
import { factsOf } from "../../../src/values/labels.ts";
import { useDatabase } from "../../support/database.ts";
import { surroundings } from "../../support/surroundings.ts";
import { addDevice, addTenant } from "../../support/tenants.ts";

const database = useDatabase();
const ttlMs = 60_000;

test("twenty devices that enrol at once bring exactly one default watcher, pinned to one of them", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  const enrolments = await Promise.all(Array.from({ length: 20 }, () => addDevice(db, tenant)));

  expect(new Set(enrolments.map((enrolment) => enrolment.deviceId)).size).toBe(20);
  const list = await watchers.list(db, { orgId: "acme", limit: 10 });
  expect(list).toHaveLength(1);
  const bringer = enrolments.filter((enrolment) => enrolment.defaultWatcherId);
  expect(bringer).toHaveLength(1);
  expect(list[0]).toMatchObject({
    id: bringer[0]!.defaultWatcherId,
    device_id: bringer[0]!.deviceId,
    slug: "daily-checkin",
    name: "Daily check-in",
    schedule: "0 9 * * *",
    agent_id: "pinion-default",
    status: "active",
  });
  expect(list[0]!.prompt).toContain("do not invent");
});

test("a default watcher that a person deleted stays deleted", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  const { defaultWatcherId } = await addDevice(db, tenant);
  const asked = { orgId: "acme", watcher: defaultWatcherId!, actor: "user:x" };
  await removeWatcher(db, asked, surroundings);
  expect((await addDevice(db, tenant)).defaultWatcherId).toBeUndefined();
  expect(await watchers.list(db, { orgId: "acme", limit: 10 })).toEqual([]);
});

test("a phone or a browser does not bring the default watcher, a later laptop does", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  expect((await addDevice(db, tenant, { os: "ios" })).defaultWatcherId).toBeUndefined();
  expect((await addDevice(db, tenant, { os: "browser" })).defaultWatcherId).toBeUndefined();
  expect((await addDevice(db, tenant, { os: "macos" })).defaultWatcherId).toBeDefined();
});

test("of two daemons with one join code, one enrols", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  const { code } = await joinCodes.create(db, {
    tokenId: null,
    orgId: "acme",
    userId: tenant.userId,
    expiresInMs: 60_000,
    actor: "pinion",
  });
  const attempts = await Promise.allSettled(
    Array.from({ length: 8 }, () =>
      enroll(
        db,
        {
          joinCode: code,
          installId: randomUUID(),
          os: "linux",
          label: "box",
          appVersion: "",
        },
        surroundings,
      ),
    ),
  );
  expect(attempts.filter((attempt) => attempt.status === "fulfilled")).toHaveLength(1);
  for (const attempt of attempts) {
    if (attempt.status === "rejected") expect(attempt.reason).toMatchObject({ reason: "unauthenticated" });
  }
});

test("a join code that is consumed while its first user has not committed is lost to the second", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const { code } = await joinCodes.create(db, {
    tokenId: null,
    orgId: "acme",
    userId: null,
    expiresInMs: 60_000,
    actor: "pinion",
  });
  const second = await db.transaction().execute(async (tx) => {
    expect(await joinCodes.consume(tx, { code })).toEqual({ orgId: "acme", userId: null, tokenId: null });
    const waiting = joinCodes.consume(db, { code: ` ${code.toLowerCase()}` });
    await untilSomebodyWaits();
    return { waiting };
  });
  expect(await second.waiting).toBeUndefined();
});

test("a join code is good until it expires", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  const { code } = await joinCodes.create(db, {
    tokenId: null,
    orgId: "acme",
    userId: null,
    expiresInMs: 60_000,
    actor: "pinion",
  });
  await sql`update join_code set expires_at = now() - interval '1 second'`.execute(db);
  expect(await joinCodes.consume(db, { code })).toBeUndefined();
});

test("a device that enrols again keeps its id, and its earlier token ends", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  const first = await addDevice(db, tenant, { installId: "install-0001", label: "old name" });
  const again = await addDevice(db, tenant, { installId: "install-0001", label: "new name" });

  expect(again.deviceId).toBe(first.deviceId);
  expect(again.revokedTokenIds).toHaveLength(1);
  const [before, after] = await credentials.findByHashes(db, [
    secretHash(first.secret),
    secretHash(again.secret),
  ]);
  expect(before).toMatchObject({ isRevoked: true });
  expect(after).toMatchObject({
    isRevoked: false,
    kind: "dev",
    scopes: ["device:run"],
    deviceId: first.deviceId,
  });
  expect(tokenKind(again.secret)).toBe("dev");
  expect(await devices.find(db, { orgId: "acme", deviceId: first.deviceId })).toMatchObject({
    label: "new name",
  });
});

test("an operating system is set once, and the refusal does not use the join code up", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  await addDevice(db, tenant, { installId: "install-0001", os: "linux" });
  const { code } = await joinCodes.create(db, {
    tokenId: null,
    orgId: "acme",
    userId: tenant.userId,
    expiresInMs: 60_000,
    actor: "pinion",
  });
  const facts = { installId: "install-0001", label: "box", appVersion: "" };
  await expect(enroll(db, { joinCode: code, os: "macos", ...facts }, surroundings)).rejects.toMatchObject({
    reason: "permission_denied",
  });
  await enroll(db, { joinCode: code, os: "linux", ...facts }, surroundings);
});

test("liveness follows the database's clock: never, online, unsteady, offline", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  const { deviceId } = await addDevice(db, tenant);
  const name = { orgId: "acme", deviceId };
  const liveness = async () => (await devices.get(db, { ...name, ttlMs })).liveness;
  expect(await liveness()).toBe("never");

  const { epoch, sessionId } = await presence.open(db, { ...name, replicaId: "r1", ttlMs: 60_000 });
  expect(await liveness()).toBe("online");
  await presence.close(db, [{ ...name, epoch, sessionId }]);
  expect(await liveness()).toBe("unsteady");
  await sql`update presence set disconnected_at = now() - interval '2 minutes', last_beat_at = now() - interval '2 minutes'`.execute(
    db,
  );
  expect(await liveness()).toBe("offline");

  await presence.open(db, { ...name, replicaId: "r2", ttlMs: 60_000 });
  await sql`update presence set connected_at = now() - interval '1 hour', last_beat_at = now() - interval '61 seconds'`.execute(
    db,
  );
  expect(await liveness()).toBe("offline");
  await sql`update presence set last_beat_at = now() - interval '59 seconds'`.execute(db);
  expect(await devices.get(db, { ...name, ttlMs })).toMatchObject({
    liveness: "online",
    session_epoch: 2,
    replica_id: "r2",
    active_runs: 0,
    pending_runs: 0,
  });
});

test("a hello that says nothing new writes nothing; one that does leaves an event", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  const { deviceId } = await addDevice(db, tenant, { label: "box" });
  const facts = {
    appVersion: "2.0.0",
    label: "",
    agentKinds: ["claude-code"],
    capabilities: ["notification"],
    maxConcurrency: 4,
    configProblem: "",
    executors: [{ kind: "claude-code", type: "claude-code", version: "2.1.3" }],
    upgrade: null,
    workspaces: [{ name: "app", mode: "WORKSPACE_MODE_SHARED" }],
  };
  const hello = async () =>
    hellos.updateFromHello(db, (await devices.find(db, { orgId: "acme", deviceId }))!, facts);
  expect(await hello()).toBe(true);
  const head = await events.head(db, { orgId: "acme" });
  expect(await hello()).toBe(false);
  expect(await events.head(db, { orgId: "acme" })).toBe(head);
  expect(await devices.find(db, { orgId: "acme", deviceId })).toMatchObject({
    app_version: "2.0.0",
    label: "box",
    agent_kinds: ["claude-code"],
    max_concurrency: 4,
  });
  const [latest] = await events.list(db, { orgId: "acme", limit: 1 });
  expect(latest).toMatchObject({ kind: "device.updated", actor: `device:${deviceId}` });
  expect(Object.keys(latest!.data.changes).sort()).toEqual([
    "agent_kinds",
    "app_version",
    "capabilities",
    "executors",
    "max_concurrency",
    "workspaces",
  ]);
});

test("removing a device unpins its watchers as an edit of each, and its token is good no more", async () => {
  const { db } = database;
  const tenant = await addTenant(db, "acme");
  const { deviceId, secret, defaultWatcherId } = await addDevice(db, tenant);
  await presence.open(db, { orgId: "acme", deviceId, replicaId: "r1", ttlMs: 60_000 });
  const asked = { orgId: "acme", deviceId, actor: "user:x" };
  expect(await removeDevice(db, asked, surroundings)).toMatchObject({
    watchersUnpinned: 1,
    session: { replicaId: "r1", epoch: 1 },
  });
  expect(await watchers.get(db, { orgId: "acme", watcher: defaultWatcherId! })).toMatchObject({
    status: "no_executor",
    device_id: null,
    version: 2,
    paused_reason: 'device "box" was deleted',
  });
  expect(await credentials.findByHashes(db, [secretHash(secret)])).toEqual([undefined]);
  await expect(removeDevice(db, asked, surroundings)).rejects.toMatchObject({ reason: "not_found" });
});

test("what an org does to another's device finds none", async () => {
  const { db } = database;
  const { deviceId } = await addDevice(db, await addTenant(db, "acme"));
  await addTenant(db, "other");
  const name = { orgId: "other", deviceId };
  await expect(devices.get(db, { ...name, ttlMs })).rejects.toMatchObject({ reason: "not_found" });
  await expect(devices.updateLabel(db, { ...name, label: "mine", actor: "user:x" })).rejects.toMatchObject({
    reason: "not_found",
  });
  expect(await deviceLists.list(db, { orgId: "other", ttlMs, limit: 10 })).toEqual([]);
});

test("a selector finds the devices of a big org that it matches, page by page in the order of labels", async () => {
  const { db } = database;
  await addTenant(db, "acme");
  await sql`insert into device (org_id, install_id, os, label, agent_kinds, labels, machine, executors)
    select 'acme', i::text, (array['linux', 'macos'])[1 + i % 2], 'machine ' || lpad((i * 7919 % 400)::text, 3, '0'),
      array['codex'], array['site:' || i % 9], jsonb_build_object('arch', (array['x86_64', 'arm64'])[1 + i % 3 / 2], 'host', i),
      case when i % 5 = 0 then '[{"kind": "codex", "problem": "gone"}]' else '[]' end::jsonb
    from generate_series(1, 400) i`.execute(db);
  const wanted = { orgId: "acme", ttlMs, limit: 1_000 };
  const all = await deviceLists.list(db, wanted);
  for (const selector of [
    "os == 'linux'",
    "'site:7' in labels && arch == 'x64'",
    "arch == 'arm64' && !('has:codex' in labels)",
    "'site:none' in labels",
  ]) {
    const matching = all.filter((device) => matches(selector, factsOf(device))).map(({ id }) => id);
    for (const limit of [1, 7, 1_000]) {
      const found: devices.Device[] = [];
      for (;;) {
        const page = await deviceLists.listMatching(db, selector, { ...wanted, limit, after: found.at(-1) });
        found.push(...page);
        if (page.length < limit || found.length > 20) break;
      }
      expect(found.map(({ id }) => id)).toEqual(matching.slice(0, found.length));
      if (limit === 1_000) expect(found).toHaveLength(matching.length);
    }
    const linux = { ...wanted, operatingSystems: ["linux" as const], labelContains: "machine 1" };
    const filtered = await deviceLists.listMatching(db, selector, linux);
    const both = (await deviceLists.list(db, linux)).filter((device) => matches(selector, factsOf(device)));
    expect(filtered.map(({ id }) => id)).toEqual(both.map(({ id }) => id));
  }
});

/** Waits until another connection waits for a lock. */
async function untilSomebodyWaits(): Promise<void> {
  for (;;) {
    const { rows } = await sql<{ waiting: boolean }>`
      select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock') as waiting`.execute(database.db);
    if (rows[0]!.waiting) return;
  }
}
