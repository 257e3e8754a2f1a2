/**
 * Chains, notices and hooks stand on the rights of their people: what a grant allowed ends with the
 * grant. Chains and retries ask the org's quota, as triggers do.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { beforeAll, expect, test, vi } from "vitest";
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { type WatcherSpecSchema, WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { newKey } from "../../../../src/secrets.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice, type Identity } from "../../../support/device.ts";
import { openReceiver, type Receiver } from "../../../support/receivers.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { getRun, takeOn } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const { USE, READ } = GrantPermission;
let replica: TestReplica;
let ada: Awaited<ReturnType<typeof addMember>>;
let bea: Awaited<ReturnType<typeof addMember>>;
let people = 0;

beforeAll(async () => {
  replica = await openTestReplica(database.url, {
    PINION_SECRET_KEYS: newKey(),
    PINION_DESTINATION_NETWORKS: "127.0.0.0/8",
    PINION_HEARTBEAT_TTL_MS: "60000",
  });
  ada = await addMember();
  bea = await addMember();
  return () => replica.stop();
});

async function addMember() {
  people += 1;
  const { member, secret } = await replica.clients.orgs.addMember({
    ...{ email: `flow-${people}@example.org`, role: MemberRole.MEMBER, tokenScopes: ["read", "write"] },
  });
  return { userId: member!.userId, clients: createClients({ url: replica.url, token: secret }) };
}

/** Ada's device, with its stream. */
async function adasDevice(): Promise<{ device: Identity; stream: DeviceStream }> {
  const device = await enrolDevice(ada.clients);
  return { device, stream: await connect(replica.url, device, { maxConcurrency: 4 }) };
}

type Spec = MessageInitShape<typeof WatcherSpecSchema>;

async function watcherOf({ clients }: { clients: typeof ada.clients }, spec: Spec) {
  people += 1;
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: `Flow ${people}`, prompt: "do it", ...spec },
  });
  return watcher!;
}

const beas = () => ({ kind: { case: "userId" as const, value: bea.userId } });
const grant = (deviceId: string, ...permissions: GrantPermission[]) =>
  ada.clients.fleet.grantDevice({ deviceId, grantee: beas(), permissions });
const revoke = (deviceId: string, ...permissions: GrantPermission[]) =>
  ada.clients.fleet.revokeGrant({ deviceId, grantee: beas(), permissions });

async function run(stream: DeviceStream, watcherId: string): Promise<string> {
  await replica.clients.watchers.triggerWatcher({ watcherId });
  const attempt = await takeOn(stream);
  await stream.complete(attempt, "the secret of ada");
  return attempt.workId;
}

async function destination(): Promise<{ slug: string; receiver: Receiver }> {
  const receiver = await openReceiver();
  people += 1;
  const slug = `to-${people}`;
  await replica.clients.destinations.createDestination({
    slug,
    spec: { name: slug, takesAlerts: false, kind: { case: "webhook", value: { url: receiver.url } } },
  });
  return { slug, receiver };
}

const runsOf = async (watcherId: string) => (await replica.clients.runs.listRuns({ watcherId })).runs;

test("a chain ends with the right to read what it follows, and says so", async () => {
  const { device, stream } = await adasDevice();
  const first = await watcherOf(ada, { deviceId: device.deviceId });
  await grant(device.deviceId, USE, READ);
  const next = await watcherOf(bea, { deviceId: device.deviceId, after: [first.slug] });
  await run(stream, first.id);
  expect((await takeOn(stream)).watcher!.id).toBe(next.id);
  await revoke(device.deviceId, READ);
  const { runs: before } = await replica.clients.runs.listRuns({ watcherId: next.id });
  await replica.clients.runs.cancelRun({ runId: before[0]!.id });
  const runId = await run(stream, first.id);
  expect(await runsOf(next.id)).toHaveLength(1);
  const { chain } = await replica.clients.runs.explainRun({ runId });
  expect(chain.find(({ watcherId }) => watcherId === next.id)?.reason).toMatch(
    /may not read the runs of device/,
  );
});

test("who follows a watcher that selects is given nothing of a device that they may not read", async () => {
  const { device, stream } = await adasDevice();
  await ada.clients.fleet.labelDevice({ deviceId: device.deviceId, add: ["flow-1"] });
  const first = await watcherOf(ada, { selector: '"flow-1" in labels' });
  const next = await watcherOf(bea, { after: [first.slug] });
  await run(stream, first.id);
  expect(await runsOf(next.id)).toEqual([]);
  await grant(device.deviceId, READ);
  await run(stream, first.id);
  expect(await runsOf(next.id)).toHaveLength(1);
});

test("a watcher whose author may no longer read its device is paused, its run ends, and nobody is told; the author cannot resume it", async () => {
  const { device, stream } = await adasDevice();
  const { slug, receiver } = await destination();
  const notify = [{ to: slug, when: NotifyWhen.ALWAYS }];
  await grant(device.deviceId, USE, READ);
  const told = await watcherOf(bea, { deviceId: device.deviceId, notify });
  const adas = await watcherOf(ada, { deviceId: device.deviceId, notify });
  await run(stream, told.id);
  await vi.waitFor(() => expect(receiver.received).toHaveLength(1), { timeout: 10_000 });
  await bea.clients.watchers.triggerWatcher({ watcherId: told.id });
  const attempt = await takeOn(stream);
  await revoke(device.deviceId, READ);
  expect(await stream.next("cancel")).toMatchObject({ workId: attempt.workId });
  const paused = (await replica.clients.watchers.getWatcher({ watcherId: told.id })).watcher!;
  expect(paused.status).toBe(WatcherStatus.PAUSED);
  expect(paused.pausedReason).toMatch(/may not read device .* any more/);
  expect((await replica.clients.watchers.getWatcher({ watcherId: adas.id })).watcher!.status).toBe(
    WatcherStatus.ACTIVE,
  );
  await expect(bea.clients.watchers.resumeWatcher({ watcherId: told.id })).rejects.toThrow(/grant to read/);
  await ada.clients.watchers.resumeWatcher({ watcherId: told.id });
  expect(receiver.received).toHaveLength(1);
});

test("a watcher that selects and tells goes to no device that its author may use and not read", async () => {
  const { device, stream } = await adasDevice();
  const { slug } = await destination();
  await ada.clients.fleet.labelDevice({ deviceId: device.deviceId, add: ["flow-2"] });
  await grant(device.deviceId, USE);
  const told = await watcherOf(bea, {
    selector: '"flow-2" in labels',
    notify: [{ to: slug, when: NotifyWhen.ALWAYS }],
  });
  const { run: waiting } = await bea.clients.watchers.triggerWatcher({ watcherId: told.id });
  await vi.waitFor(
    async () => {
      const { candidates } = await replica.clients.runs.explainRun({ runId: waiting!.id });
      expect(candidates.find(({ deviceId }) => deviceId === device.deviceId)).toMatchObject({
        takes: false,
        reason: expect.stringMatching(/may not read it, and the watcher sends its results/),
      });
    },
    { timeout: 10_000 },
  );
  await grant(device.deviceId, READ);
  expect((await takeOn(stream)).workId).toBe(waiting!.id);
});

test("a hook of somebody who may no longer use the device answers nobody, and others' hooks go on", async () => {
  const { device } = await adasDevice();
  const watcher = await watcherOf(ada, { deviceId: device.deviceId });
  await grant(device.deviceId, USE);
  const spec = { watcherId: watcher.slug, kind: HookKind.BEARER };
  const [hers, adas] = [
    await bea.clients.hooks.createHook({ spec, slug: "beas" }),
    await ada.clients.hooks.createHook({ spec }),
  ];
  const post = async ({ url, secret }: typeof hers) =>
    (
      await fetch(`${replica.url}${url}`, {
        ...{ method: "POST", body: "{}", headers: { authorization: `Bearer ${secret}` } },
      })
    ).status;
  expect(await post(hers)).toBe(202);
  await revoke(device.deviceId, USE);
  expect([await post(hers), await post(adas)]).toEqual([404, 202]);
  const { hook } = await ada.clients.hooks.getHook({ hookId: "beas" });
  expect(hook!.spec!.isDisabled).toBe(true);
  const { events } = await replica.clients.events.listEvents({ kinds: ["hook.updated"] });
  expect(events.at(0)?.data).toMatchObject({
    hook: "beas",
    reason: expect.stringMatching(/may not use the device/),
  });
});

test("starts of chains and retries are held to the org's quota, as triggers are", async () => {
  const { secret } = await replica.clients.orgs.createOrg({
    ...{ orgId: "small", name: "small", ownerEmail: "owner@small.example", ownerName: "owner" },
  });
  await sql`update org set metadata = metadata || '{"runs_max": 1}' where id = 'small'`.execute(database.db);
  const clients = createClients({ url: replica.url, token: secret });
  const device = await enrolDevice(clients);
  const stream = await connect(replica.url, device, { maxConcurrency: 4 });
  const first = await watcherOf({ clients }, { deviceId: device.deviceId });
  const followers = [
    await watcherOf({ clients }, { deviceId: device.deviceId, after: [first.slug] }),
    await watcherOf({ clients }, { deviceId: device.deviceId, after: [first.slug] }),
  ];
  await clients.watchers.triggerWatcher({ watcherId: first.id });
  const attempt = await takeOn(stream);
  await stream.complete(attempt, "done");
  const started = (
    await Promise.all(followers.map(({ id: watcherId }) => clients.runs.listRuns({ watcherId })))
  ).flatMap(({ runs }) => runs);
  expect(started.filter(({ status }) => status === RunStatus.SKIPPED)).toMatchObject([
    { skipReason: SkipReason.LIMIT, reason: "the org was at its limit of 1 active runs" },
  ]);
  expect(started).toHaveLength(2);
  await expect(clients.runs.retryRun({ runId: attempt.workId })).rejects.toThrow(/limit of 1 active runs/);
  expect((await getRun(clients, { workId: attempt.workId })).status).toBe(RunStatus.COMPLETED);
});
