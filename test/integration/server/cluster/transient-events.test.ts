/** Events that are in no log, as received by current watchers of an org, on any replica. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { type Clients, createClients } from "@pinion/client";
import { sql } from "kysely";
import pg from "pg";
import { expect, onTestFinished, test, vi } from "vitest";
import type { Event, TransientEvent, WatchEventsRequestSchema } from "#gen/pinion/v1/event_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { addTenant } from "../../../support/tenants.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "first", "second");

/** On a busy machine too. */
const eventually = (check: () => void) => vi.waitFor(check, { timeout: 15_000, interval: 20 });

let count = 0;

/** A new org, from its owner's view on each replica: not watched before. */
async function newOrg() {
  count += 1;
  const { orgId, secret } = await addTenant(database.db, `org-${count}`);
  const as = ({ url }: { url: string }) => createClients({ url, token: secret });
  return { orgId, first: as(replicas.first), second: as(replicas.second) };
}

/** Watches an org from now on; messages so far are in the lists. */
async function watch(clients: Clients, request: MessageInitShape<typeof WatchEventsRequestSchema> = {}) {
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const seen = { events: [] as Event[], transients: [] as TransientEvent[], resyncs: 0, cursors: 0 };
  const stream = clients.events.watchEvents({ includeTransient: true, ...request }, { signal: stop.signal });
  const ended = (async () => {
    for await (const { update } of stream) {
      if (update.case === "event") seen.events.push(update.value);
      if (update.case === "transient") seen.transients.push(update.value);
      if (update.case === "resync") seen.resyncs += 1;
      if (update.case === "cursor") seen.cursors += 1;
    }
  })();
  ended.catch(() => {});
  await eventually(() => expect(seen.cursors).toBeGreaterThan(0));
  const kinds = (deviceId: string) =>
    seen.transients.filter((event) => event.deviceId === deviceId).map((event) => event.kind);
  /** The other replica has heard of the first reader of this org here. */
  const isHeard = () => eventually(() => expect(seen.resyncs).toBeGreaterThan(0));
  return { ...seen, seen, kinds, isHeard, stop: () => stop.abort() };
}

/** Messages between replicas, as received by another session of PostgreSQL. */
async function overhear(...channels: string[]) {
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  onTestFinished(() => client.end());
  const heard: { channel: string; from: string; kind: string; orgId: string }[] = [];
  client.on("notification", ({ channel, payload }) => {
    const { from, messages } = JSON.parse(payload!) as { from: string; messages: typeof heard };
    for (const { kind, orgId } of messages) heard.push({ channel, from, kind, orgId });
  });
  for (const channel of channels) await client.query(`listen ${pg.escapeIdentifier(channel)}`);
  const kinds = (orgId: string) => heard.filter((it) => it.orgId === orgId).map((it) => it.kind);
  return { heard, kinds };
}

test("devices that come and go and runs that move on are seen on every replica where somebody watches", async () => {
  const { first, second } = await newOrg();
  const here = await watch(first);
  const there = await watch(second);
  await Promise.all([here.isHeard(), there.isHeard()]);

  const device = await enrolDevice(first);
  const stream = await connect(replicas.second.url, device);
  const run = await startWork(first, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment);
  // The start of a run is told after its write, which the end of a stream does not wait for.
  for (const reader of [here, there])
    await eventually(() => expect(reader.kinds(device.deviceId)).toContain("run.started"));
  stream.cancel();

  for (const reader of [here, there]) {
    await eventually(() => expect(reader.kinds(device.deviceId)).toHaveLength(4));
    expect(reader.kinds(device.deviceId)).toEqual([
      "device.connected",
      "run.claimed",
      "run.started",
      "device.disconnected",
    ]);
    expect(reader.transients.find((event) => event.runId === run.id)).toMatchObject({
      kind: "run.claimed",
      watcherId: run.watcherId,
      attempt: 1,
      replicaId: replicas.second.replicaId,
      sessionEpoch: 1n,
    });
    const { at } = reader.transients.at(-1)!;
    expect(Math.abs(timestampDate(at!).getTime() - Date.now())).toBeLessThan(60_000);
    await eventually(() => expect(reader.events.map((event) => event.kind)).toContain("run.completed"));
    expect(reader.seen.resyncs).toBe(1);
  }
  // After the event of a device's departure, reads show the device as gone.
  const { device: after } = await first.fleet.getDevice({ deviceId: device.deviceId });
  expect(after!.disconnectedAt).toBeDefined();
});

test("a session that a newer one replaced is not told of as a device that has gone", async () => {
  const { first } = await newOrg();
  const reader = await watch(first);
  await reader.isHeard();
  const device = await enrolDevice(first);
  const older = await connect(replicas.first.url, device);
  const newer = await connect(replicas.second.url, device);
  await older.ended;
  newer.cancel();
  await eventually(() => expect(reader.kinds(device.deviceId)).toContain("device.disconnected"));
  const told = reader.transients.filter((event) => event.deviceId === device.deviceId);
  expect(
    told.filter((event) => event.kind === "device.connected").map((event) => event.sessionEpoch),
  ).toEqual([1n, 2n]);
  expect(told.at(-1)).toMatchObject({ kind: "device.disconnected", sessionEpoch: 2n });
  expect(told).toHaveLength(3);
});

test("who does not ask for transient events gets none, and who asks for kinds gets those", async () => {
  const { first } = await newOrg();
  const { url } = replicas.first;
  const plain = await watch(first, { includeTransient: false });
  const some = await watch(first, { kinds: ["device.connected", "token."] });
  const all = await watch(first);
  const device = await enrolDevice(first);
  (await connect(url, device)).cancel();
  await eventually(() => expect(all.kinds(device.deviceId)).toContain("device.disconnected"));
  await connect(url, device);
  await eventually(() => expect(some.kinds(device.deviceId)).toHaveLength(2));
  expect(some.kinds(device.deviceId)).toEqual(["device.connected", "device.connected"]);
  await eventually(() => expect(plain.events.map((event) => event.kind)).toContain("device.enrolled"));
  expect(plain.transients).toEqual([]);
  expect(plain.seen.resyncs).toBe(0);
});

test("another org's transient events never cross, on the same replica and through the bus", async () => {
  const mine = await newOrg();
  const other = await newOrg();
  const reader = await watch(mine.first);
  const foreign = [await watch(other.first), await watch(other.second)];
  await Promise.all([reader, ...foreign].map((each) => each.isHeard()));

  const device = await enrolDevice(mine.first);
  const stream = await connect(replicas.second.url, device);
  await startWork(mine.first, device);
  await takeOn(stream);
  const own = await enrolDevice(other.first);
  await connect(replicas.first.url, own);
  await eventually(() => expect(reader.kinds(device.deviceId)).toContain("run.started"));
  for (const each of foreign) {
    await eventually(() => expect(each.kinds(own.deviceId)).toEqual(["device.connected"]));
    expect(each.transients.map((event) => event.deviceId)).toEqual([own.deviceId]);
  }
  expect(reader.kinds(own.deviceId)).toEqual([]);
});

test("where nobody watches the org, nothing is sent to other replicas, nor after the last reader has left", async () => {
  const { orgId, first, second } = await newOrg();
  const { url } = replicas.second;
  const bus = await overhear(
    "pinion_all",
    ...Object.values(replicas).map(({ replicaId }) => `pinion_${replicaId}`),
  );
  const device = await enrolDevice(second);
  (await connect(url, device)).cancel();
  await eventually(async () => {
    const { device: seen } = await second.fleet.getDevice({ deviceId: device.deviceId });
    expect(seen?.disconnectedAt).toBeDefined();
  });
  const reader = await watch(first);
  await reader.isHeard();
  await eventually(() => expect(bus.kinds(orgId)).toContain("org_heard"));
  expect(bus.kinds(orgId)).not.toContain("transients");

  await connect(url, device);
  await eventually(() => expect(reader.kinds(device.deviceId)).toContain("device.connected"));
  await eventually(() => expect(bus.kinds(orgId)).toContain("transients"));
  // Only the watching replica gets the message, from the replica that serves the device.
  const told = bus.heard.filter((message) => message.kind === "transients" && message.orgId === orgId);
  expect(new Set(told.map(({ from, channel }) => `${from} → ${channel}`))).toEqual(
    new Set([`${replicas.second.replicaId} → pinion_${replicas.first.replicaId}`]),
  );

  reader.stop();
  await eventually(() => expect(bus.kinds(orgId)).toContain("unwatch_org"));
  const { orgId: laterOrgId, first: later, second: laterThere } = await newOrg();
  // The message for another org is sent later on the same channel, so all earlier messages have
  // arrived.
  const mark = await watch(later);
  await mark.isHeard();
  const before = bus.kinds(orgId).filter((kind) => kind === "transients").length;
  await connect(url, device);
  await connect(url, await enrolDevice(laterThere));
  await eventually(() => expect(bus.kinds(laterOrgId)).toContain("transients"));
  expect(bus.kinds(orgId).filter((kind) => kind === "transients")).toHaveLength(before);
});

test("a reader whose replica lost its line to the others is told to read anew, and sees what comes then", async () => {
  const { first, second } = await newOrg();
  const reader = await watch(first);
  await reader.isHeard();
  const before = reader.seen.resyncs;
  await sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'pinion listener'
  `.execute(database.db);
  await eventually(() => expect(reader.seen.resyncs).toBeGreaterThan(before));
  const device = await enrolDevice(second);
  await connect(replicas.second.url, device);
  await eventually(() => expect(reader.kinds(device.deviceId)).toContain("device.connected"));
});
