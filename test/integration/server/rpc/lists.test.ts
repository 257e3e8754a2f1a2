/** The additional data of lists, and their filters. */
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { expect, test, vi } from "vitest";
import { Os, Outcome } from "#gen/pinion/v1/device_pb.js";
import { Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { addDevice, addTenant } from "../../../support/tenants.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "first");

/** On a busy machine too. */
const eventually = (check: () => Promise<void>) => vi.waitFor(check, { timeout: 15_000, interval: 5 });

let count = 0;

async function newOrg() {
  count += 1;
  const tenant = await addTenant(database.db, `org-${count}`);
  return { ...tenant, ...createClients({ url: replicas.first.url, token: tenant.secret }) };
}

test("devices are narrowed to what is there, to a part of their label, and to platforms", async () => {
  const org = await newOrg();
  const { db } = database;
  const online = await enrolDevice(org, "Build box 100%");
  await connect(replicas.first.url, online);
  const never = await enrolDevice(org, "build_laptop");
  const { deviceId: phone } = await addDevice(db, org, { label: "Phone", os: "android" });
  await sql`insert into presence (org_id, device_id, epoch, replica_id, connected_at, disconnected_at, last_beat_at)
    values (${org.orgId}, ${phone}, 1, 'r', now() - interval '2 h', now() - interval '1 h', now() - interval '1 h')`.execute(
    db,
  );
  const idsOf = async (request: Parameters<typeof org.fleet.listDevices>[0]) =>
    (await org.fleet.listDevices(request)).devices.map((device) => device.id);
  const { ONLINE, OFFLINE, NEVER } = Liveness;

  expect(await idsOf({ liveness: [ONLINE] })).toEqual([online.deviceId]);
  expect(new Set(await idsOf({ liveness: [OFFLINE, NEVER] }))).toEqual(new Set([phone, never.deviceId]));
  expect(new Set(await idsOf({ labelContains: "BUILD" }))).toEqual(
    new Set([online.deviceId, never.deviceId]),
  );
  // Text, and no pattern.
  expect(await idsOf({ labelContains: "%" })).toEqual([online.deviceId]);
  expect(await idsOf({ labelContains: "_" })).toEqual([never.deviceId]);
  expect(await idsOf({ operatingSystems: [Os.ANDROID, Os.IOS] })).toEqual([phone]);
  expect(await idsOf({ operatingSystems: [Os.LINUX], liveness: [NEVER] })).toEqual([never.deviceId]);
  expect(await idsOf({ labelContains: "nowhere" })).toEqual([]);
  await expect(org.fleet.listDevices({ liveness: [9 as Liveness] })).rejects.toMatchObject({
    code: Code.InvalidArgument,
  });

  // Page by page, too.
  const first = await org.fleet.listDevices({ labelContains: "build", pageSize: 1 });
  const second = await org.fleet.listDevices({
    labelContains: "build",
    pageSize: 1,
    pageToken: first.nextPageToken,
  });
  expect(new Set([...first.devices, ...second.devices].map((device) => device.id))).toEqual(
    new Set([online.deviceId, never.deviceId]),
  );
  expect(second.nextPageToken).toBe("");
});

test("a device shows the run that it has, then the one that it ended last, and in lists only on request", async () => {
  const org = await newOrg();
  const device = await enrolDevice(org);
  const lastRun = async () => (await org.fleet.getDevice({ deviceId: device.deviceId })).device!.lastRun;
  expect(await lastRun()).toBeUndefined();
  const stream = await connect(replicas.first.url, device);
  const older = await startWork(org, device);
  await stream.complete(await takeOn(stream), "", Outcome.FAILED, "no");
  expect(await lastRun()).toMatchObject({
    id: older.id,
    status: RunStatus.FAILED,
    watcherId: older.watcherId,
  });
  expect((await lastRun())!.finishedAt).toBeDefined();

  const newer = await startWork(org, device);
  const assignment = await takeOn(stream);
  await eventually(async () =>
    expect(await lastRun()).toMatchObject({ id: newer.id, status: RunStatus.RUNNING }),
  );
  expect((await lastRun())!.startedAt).toBeDefined();
  expect((await lastRun())!.finishedAt).toBeUndefined();
  await stream.complete(assignment);
  expect(await lastRun()).toMatchObject({ id: newer.id, status: RunStatus.COMPLETED });

  // No run ended recently: the newest kept run counts.
  await sql`update run_finished set finished_at = now() - interval '9 days' where device_id = ${device.deviceId}`.execute(
    database.db,
  );
  expect(await lastRun()).toMatchObject({ id: newer.id });
  const listed = async (includeLastRun: boolean) =>
    (await org.fleet.listDevices({ includeLastRun })).devices.map((each) => each.lastRun?.id);
  expect(await listed(true)).toEqual([newer.id]);
  expect(await listed(false)).toEqual([undefined]);
});

test("watchers show their recent runs, newest first and at most thirty, and their next three slots, on request", async () => {
  const org = await newOrg();
  const device = await enrolDevice(org);
  const { watcher } = await org.watchers.createWatcher({
    slug: "hourly",
    spec: {
      name: "Hourly",
      prompt: "p",
      schedule: "0 * * * *",
      timeZone: "Europe/Berlin",
      deviceId: device.deviceId,
    },
  });
  await org.watchers.createWatcher({ slug: "by-hand", spec: { name: "By hand", prompt: "p" } });
  await org.watchers.createWatcher({
    slug: "paused",
    spec: { name: "Paused", prompt: "p", schedule: "0 * * * *" },
  });
  await org.watchers.pauseWatcher({ watcherId: "paused" });
  const stream = await connect(replicas.first.url, device);
  await org.watchers.triggerWatcher({ watcherId: "hourly" });
  const assignment = await takeOn(stream);
  await stream.complete(assignment);
  const { rows: columns } = await sql<{ names: string }>`
    select string_agg(column_name, ', ') as names from information_schema.columns
    where table_name = 'run_finished' and column_name not in ('id', 'finished_at', 'duration_ms')`.execute(
    database.db,
  );
  const rest = sql.raw(columns[0]!.names);
  await sql`insert into run_finished (id, finished_at, duration_ms, ${rest})
    select ('f0000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, now(), n * 1000, ${rest} from run_finished, generate_series(1, 34) n
    where id = ${assignment.workId}`.execute(database.db);

  const list = await org.watchers.listWatchers({ includeRecentRuns: true, includeNextSlots: true });
  const of = (slug: string) => list.watchers.find((each) => each.slug === slug)!;
  expect(
    ["by-hand", "hourly", "paused"]
      .map(of)
      .map((each) => [each.slug, each.recentRuns.length, each.nextSlots.length]),
  ).toEqual([
    ["by-hand", 0, 0],
    ["hourly", 30, 3],
    ["paused", 0, 0],
  ]);
  const hourly = of("hourly");
  expect(hourly.recentRuns.map((run) => Number(run.duration!.seconds))).toEqual(
    Array.from({ length: 30 }, (_each, i) => 34 - i),
  );
  expect(hourly.recentRuns[0]).toMatchObject({ status: RunStatus.COMPLETED, watcherId: watcher!.id });
  expect(hourly.recentRuns[0]!.dueAt).toBeDefined();
  expect(hourly.nextSlots[0]).toEqual(hourly.nextSlotAt);
  const [one, two, three] = hourly.nextSlots.map((slot) => timestampDate(slot).getTime());
  expect([two! - one!, three! - two!]).toEqual([3_600_000, 3_600_000]);

  const { watcher: alone } = await org.watchers.getWatcher({
    watcherId: "hourly",
    includeRecentRuns: true,
    includeNextSlots: true,
  });
  expect(alone).toMatchObject({ recentRuns: hourly.recentRuns, nextSlots: hourly.nextSlots });
  const plain = (await org.watchers.getWatcher({ watcherId: "hourly" })).watcher!;
  expect([plain.recentRuns, plain.nextSlots]).toEqual([[], []]);
});

test("another org's runs are in no list, also where ids agree", async () => {
  const [mine, other] = [await newOrg(), await newOrg()];
  const device = await enrolDevice(mine);
  const stream = await connect(replicas.first.url, device);
  const run = await startWork(mine, device);
  await stream.complete(await takeOn(stream));
  // The other org has a device and a watcher of the same ids.
  for (const table of ["device", "watcher", "schedule_position", "watcher_revision"]) {
    const { rows } = await sql<{ names: string }>`
      select string_agg(quote_ident(column_name), ', ') as names from information_schema.columns
      where table_name = ${table} and column_name <> 'org_id'`.execute(database.db);
    const rest = sql.raw(rows[0]!.names);
    await sql`insert into ${sql.table(table)} (org_id, ${rest})
      select ${other.orgId}, ${rest} from ${sql.table(table)} where org_id = ${mine.orgId}`.execute(
      database.db,
    );
  }
  const { devices } = await other.fleet.listDevices({ includeLastRun: true });
  expect(devices.map((each) => [each.id, each.lastRun])).toEqual([[device.deviceId, undefined]]);
  const { watchers } = await other.watchers.listWatchers({ includeRecentRuns: true });
  expect(watchers.map((each) => [each.id, each.recentRuns.length])).toContainEqual([run.watcherId, 0]);
  const own = await mine.watchers.listWatchers({ includeRecentRuns: true });
  expect(own.watchers.map((each) => [each.id, each.recentRuns.length])).toContainEqual([run.watcherId, 1]);
});
