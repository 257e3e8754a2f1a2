/**
 * Watchers that select devices by properties: the device chosen for a run, and the explanation
 * while no device matches.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { beforeAll, expect, test, vi } from "vitest";
import { GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { SpreadMode, type WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { getRun, takeOn, untilStatus, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one", "two");
type Clients = ReturnType<typeof createClients>;
let owner: Clients;
let count = 0;

beforeAll(() => {
  owner = replicas.one.clients;
});

/**
 * A device with labels of its own, so that the tests of this file do not interfere; `name` must be
 * unique among tests.
 */
async function labelled(name: string, labels: string[] = [], clients: Clients = owner) {
  const device = await enrolDevice(clients);
  await clients.fleet.labelDevice({ deviceId: device.deviceId, add: [name, ...labels] });
  return device;
}

/** A run of a new watcher with a selector. */
async function selecting(
  selector: string,
  spec: MessageInitShape<typeof WatcherSpecSchema> = {},
  clients: Clients = owner,
) {
  count += 1;
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: `Selecting ${count}`, prompt: "do it", selector, ...spec },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  return { watcher: watcher!, run: run! };
}

async function untilReason({ runId }: { runId: string }, words: RegExp) {
  return vi.waitFor(
    async () => {
      const run = await getRun(owner, { workId: runId });
      expect(run.reason).toMatch(words);
      return run;
    },
    { timeout: 10_000, interval: 20 },
  );
}

test("a run goes to the device that matches, at once, and to no other", async () => {
  const [gpu, other] = [await labelled("t1", ["gpu"]), await labelled("t1")];
  const [stream, otherStream] = [
    await connect(replicas.one.url, gpu, { agentKinds: ["sh"] }),
    await connect(replicas.two.url, other),
  ];
  const { run } = await selecting('os == "linux" && "t1" in labels && "gpu" in labels && "has:sh" in labels');
  const assignment = await takeOn(stream);
  expect(assignment.workId).toBe(run.id);
  const placed = await untilStatus(owner, { workId: run.id }, RunStatus.RUNNING);
  expect(placed.deviceId).toBe(gpu.deviceId);
  await stream.complete(assignment);
  await untilStatus(owner, { workId: run.id }, RunStatus.COMPLETED);
  await otherStream.beat();
  expect(otherStream.waiting("assignment")).toEqual([]);
});

test("a device on another replica is given its run as well", async () => {
  const device = await labelled("t2");
  const stream = await connect(replicas.two.url, device);
  const { run } = await selecting('"t2" in labels');
  expect((await takeOn(stream)).workId).toBe(run.id);
});

test("the least busy device comes first, and what finds no free slot waits for one", async () => {
  const devices = [await labelled("t3"), await labelled("t3")];
  const streams = await Promise.all(
    devices.map((device) => connect(replicas.one.url, device, { maxConcurrency: 2 })),
  );
  const runs: string[] = [];
  for (let index = 0; index < 4; index++) {
    runs.push((await selecting('"t3" in labels')).run.id);
    await vi.waitFor(async () =>
      expect((await getRun(owner, { workId: runs.at(-1)! })).deviceId).not.toBe(""),
    );
  }
  const placed = await Promise.all(runs.map((runId) => getRun(owner, { workId: runId })));
  const counts = devices.map(({ deviceId }) => placed.filter((run) => run.deviceId === deviceId).length);
  expect(counts).toEqual([2, 2]);
  const { run: fifth } = await selecting('"t3" in labels');
  await untilReason({ runId: fifth.id }, /all online devices that match its selector are busy/);
  const first = await takeOn(streams[1]!);
  await streams[1]!.complete(first);
  const at = await vi.waitFor(async () => {
    const run = await getRun(owner, { workId: fifth.id });
    expect(run.deviceId).toBe(devices[1]!.deviceId);
    return run;
  });
  expect(at.reason).toBe("");
});

test("a run that nothing matches says so, and is placed as soon as a device gets the label", async () => {
  const device = await labelled("t4");
  const stream = await connect(replicas.one.url, device);
  const { run } = await selecting('"t4" in labels && "later" in labels');
  await untilReason({ runId: run.id }, /no device that matches its selector is online/);
  const { events } = await owner.events.listEvents({ runId: run.id });
  expect(events.map(({ kind }) => kind).sort()).toEqual(["run.created", "run.waiting"]);
  await owner.fleet.labelDevice({ deviceId: device.deviceId, add: ["later"] });
  expect((await takeOn(stream)).workId).toBe(run.id);
});

test("a device that connects is given what waits for it, on whatever replica", async () => {
  const device = await labelled("t5");
  const { run } = await selecting('"t5" in labels');
  await untilReason({ runId: run.id }, /no device that matches/);
  const stream = await connect(replicas.two.url, device);
  expect((await takeOn(stream)).workId).toBe(run.id);
});

test("a run that nobody takes by its deadline is skipped, as a pinned one is", async () => {
  const { watcher, run } = await selecting('"nobody-has-this" in labels', { startDeadline: { seconds: 1n } });
  // The expirer sleeps until the next deadline that it knew, for a sweep of 15 s at most.
  const ended = await untilStatus(owner, { workId: run.id }, RunStatus.SKIPPED, 25_000);
  expect(ended.skipReason).toBe(SkipReason.OFFLINE_EXPIRED);
  expect(watcher.spec!.selector).toBe('"nobody-has-this" in labels');
});

test("when the device is deleted, the run goes to another one that matches while it has attempts", async () => {
  const [first, second] = [await labelled("t6"), await labelled("t6")];
  const stream = await connect(replicas.one.url, first);
  const { run } = await selecting('"t6" in labels', { maxAttempts: 2 });
  await takeOn(stream);
  const secondStream = await connect(replicas.one.url, second);
  await owner.fleet.deleteDevice({ deviceId: first.deviceId });
  await sql`update run set not_before = now() where id = ${run.id}`.execute(database.db);
  await owner.fleet.labelDevice({ deviceId: second.deviceId, add: ["poke"] });
  const again = await takeOn(secondStream);
  expect(again).toMatchObject({ workId: run.id, attempt: 2 });
});

test("a selector matches the devices that its editor may use, and of a trigger those that the caller may use", async () => {
  const ada = await member();
  const bea = await member();
  const mine = await labelled("t7", [], ada.clients);
  const stream = await connect(replicas.one.url, mine);
  const { watcher, run } = await selecting('"t7" in labels', {}, bea.clients);
  await untilReason({ runId: run.id }, /no device that matches/);
  const { candidates } = await owner.runs.explainRun({ runId: run.id });
  expect(candidates.find(({ deviceId }) => deviceId === mine.deviceId)).toMatchObject({
    takes: false,
    reason: expect.stringMatching(/may not use it: a grant to use it is missing/),
  });
  await ada.clients.fleet.grantDevice({
    deviceId: mine.deviceId,
    grantee: { kind: { case: "userId", value: bea.userId } },
    permissions: [GrantPermission.USE],
  });
  const assignment = await takeOn(stream);
  expect(assignment.workId).toBe(run.id);
  await stream.complete(assignment);
  await untilStatus(owner, { workId: run.id }, RunStatus.COMPLETED);
  const carl = await member();
  const { run: asked } = await carl.clients.watchers.triggerWatcher({ watcherId: watcher.id });
  await untilReason({ runId: asked!.id }, /no device that matches/);
});

async function member() {
  count += 1;
  const email = `selecting-${count}@example.org`;
  const { member, secret } = await owner.orgs.addMember({
    ...{ email, role: MemberRole.MEMBER, tokenScopes: ["read", "write"] },
  });
  return { userId: member!.userId, clients: createClients({ url: replicas.one.url, token: secret }) };
}

test.each([
  ["what is no CEL", { selector: "os ==" }, /spec.selector: it is no CEL expression/],
  ["what has no truth value", { selector: "labels" }, /spec.selector: it is no condition/],
  [
    "a name that is none",
    { selector: 'host == "x"' },
    /there is no "host"; there are "os", "arch" and "labels"/,
  ],
  ["a spread over nothing", { spread: SpreadMode.ALL }, /spec.spread: needs a selector/],
  ["a priority of nothing", { priority: 5 }, /spec.priority: orders what waits/],
  ["a group per device of the fleet", { group: { name: "g", scope: 2 } }, /spec.group: counts per device/],
])("%s is refused when the watcher is made", async (_what, spec, words) => {
  const made = owner.watchers.createWatcher({ spec: { name: "Wrong", prompt: "x", ...spec } });
  await expect(made).rejects.toMatchObject({
    code: Code.InvalidArgument,
    message: expect.stringMatching(words),
  });
});

test("a watcher has a pin or a selector, and an edit changes from one to the other", async () => {
  const device = await labelled("t8");
  const { watcher } = await selecting('"t8" in labels');
  const pin = owner.watchers.updateWatcher({
    watcherId: watcher.id,
    spec: { deviceId: device.deviceId },
    updateMask: { paths: ["device_id"] },
  });
  await expect(pin).rejects.toThrow(/pinned to a device or selects devices, and not both/);
  const { watcher: pinned } = await owner.watchers.updateWatcher({
    watcherId: watcher.id,
    spec: { deviceId: device.deviceId },
    updateMask: { paths: ["device_id", "selector"] },
  });
  expect(pinned!.spec).toMatchObject({ deviceId: device.deviceId, selector: "" });
});
