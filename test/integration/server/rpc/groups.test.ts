/** Concurrency groups, priorities, rate limits, and runs spread over devices; on two replicas. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { createClients } from "@pinion/client";
import { sql } from "kysely";
import { beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { CompletionVerdict, Outcome, RejectReason } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { GroupScope, SpreadMode, type WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice, type Identity } from "../../../support/device.ts";
import { createRandom } from "../../../support/random.ts";
import { getRun, takeOn, untilStatus, usePatientReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = usePatientReplicas(database, "one", "two");
type Spec = MessageInitShape<typeof WatcherSpecSchema>;
let owner: ReturnType<typeof createClients>;
let count = 0;

beforeAll(() => {
  owner = replicas.one.clients;
});

async function device(hello: { maxConcurrency?: number } = {}, replica: "one" | "two" = "one") {
  const identity = await enrolDevice(owner);
  return { identity, stream: await connect(replicas[replica].url, identity, hello) };
}

async function watcherOf(spec: Spec) {
  count += 1;
  const { watcher } = await owner.watchers.createWatcher({
    spec: { name: `Grouped ${count}`, prompt: "do it", ...spec },
  });
  return watcher!;
}

async function run(spec: Spec): Promise<string> {
  const { id } = await watcherOf(spec);
  return (await owner.watchers.triggerWatcher({ watcherId: id })).run!.id;
}

const pinnedTo = ({ deviceId }: Identity, spec: Spec): Spec => ({ deviceId, ...spec });

async function untilReason(runId: string, words: RegExp) {
  await vi.waitFor(async () => expect((await getRun(owner, { workId: runId })).reason).toMatch(words), {
    timeout: 10_000,
    interval: 20,
  });
}

test("of a group one run is active at once, whatever device it is on, and the next begins when it ends", async () => {
  const [a, b] = [await device({ maxConcurrency: 4 }), await device({ maxConcurrency: 4 }, "two")];
  const group = { name: "repo-app" };
  const first = await run(pinnedTo(a.identity, { group }));
  const attempt = await takeOn(a.stream);
  const second = await run(pinnedTo(b.identity, { group }));
  await untilReason(second, /group "repo-app" is full: 1 of its runs/);
  const { summary } = await owner.runs.explainRun({ runId: second });
  expect(summary).toMatch(/group "repo-app" is full/);
  // The group does not hold up work without a group.
  const free = await run(pinnedTo(b.identity, {}));
  expect((await takeOn(b.stream)).workId).toBe(free);
  expect(attempt.workId).toBe(first);
  await a.stream.complete(attempt);
  expect((await takeOn(b.stream)).workId).toBe(second);
});

test("runs of a group begin by priority, and in their order within one", async () => {
  const { identity, stream } = await device({ maxConcurrency: 8 });
  const group = { name: "ordered", max: 1 };
  await run(pinnedTo(identity, { group }));
  let attempt = await takeOn(stream);
  const runs: Record<string, string> = {};
  for (const [name, priority] of [
    ["low", -5],
    ["first", 0],
    ["second", 0],
    ["urgent", 9],
  ] as const) {
    runs[name] = await run(pinnedTo(identity, { group, priority }));
    await untilReason(runs[name], /is full/);
  }
  const order: string[] = [];
  for (let index = 0; index < 4; index++) {
    await stream.complete(attempt);
    attempt = await takeOn(stream);
    order.push(Object.keys(runs).find((name) => runs[name] === attempt.workId)!);
  }
  expect(order).toEqual(["urgent", "first", "second", "low"]);
});

test("a group per device has a count for each device", async () => {
  const [a, b] = [await device({ maxConcurrency: 4 }), await device({ maxConcurrency: 4 })];
  const group = { name: "gpu", max: 1, scope: GroupScope.DEVICE };
  await run(pinnedTo(a.identity, { group }));
  await run(pinnedTo(b.identity, { group }));
  const attempt = await takeOn(a.stream);
  await takeOn(b.stream);
  const waiting = await run(pinnedTo(a.identity, { group }));
  await untilReason(waiting, /group "gpu" is full on it/);
  await a.stream.complete(attempt);
  expect((await takeOn(a.stream)).workId).toBe(waiting);
});

test("a run whose device is away lets others of its group pass", async () => {
  const away = await enrolDevice(owner);
  const here = await device();
  const group = { name: "passing", max: 1 };
  const first = await run(pinnedTo(away, { group, priority: 5 }));
  await untilReason(first, /offline/);
  const second = await run(pinnedTo(here.identity, { group }));
  const attempt = await takeOn(here.stream);
  expect(attempt.workId).toBe(second);
  const stream = await connect(replicas.two.url, away);
  await here.stream.complete(attempt);
  expect((await takeOn(stream)).workId).toBe(first);
});

test("so many runs of a key begin within a minute, and the next one when the oldest start is a minute old", async () => {
  const { identity, stream } = await device({ maxConcurrency: 16 });
  const rateLimit = { key: "provider", perMinute: 2 };
  const runs = [await run(pinnedTo(identity, { rateLimit })), await run(pinnedTo(identity, { rateLimit }))];
  const attempts = [await takeOn(stream)];
  attempts.push(await takeOn(stream, attempts[0]!));
  expect(attempts.map(({ workId }) => workId).sort()).toEqual([...runs].sort());
  const third = await run(pinnedTo(identity, { rateLimit }));
  await untilReason(third, /rate limit "provider": 2 runs a minute have begun/);
  await sql`update rate_key set starts = array[starts[1] - interval '1 minute', starts[2]] where key = 'provider'`.execute(
    database.db,
  );
  await owner.fleet.labelDevice({ deviceId: identity.deviceId, add: ["poke"] });
  expect((await takeOn(stream, ...attempts)).workId).toBe(third);
});

test("when an agent is told to come later, nothing begins under its key before then", async () => {
  const [a, b] = [await device(), await device()];
  const rateLimit = { key: "told" };
  await run(pinnedTo(a.identity, { rateLimit }));
  const attempt = await takeOn(a.stream);
  a.stream.send({
    case: "complete",
    value: {
      ...{ workId: attempt.workId, attemptToken: attempt.attemptToken, outcome: Outcome.FAILED },
      ...{ reason: "429", retryAfter: { seconds: 600n } },
    },
  });
  await a.stream.next("completionAck");
  const other = await run(pinnedTo(b.identity, { rateLimit }));
  await untilReason(other, /told to come later/);
  // Another key is not concerned.
  const free = await run(pinnedTo(b.identity, { rateLimit: { key: "else" } }));
  expect((await takeOn(b.stream)).workId).toBe(free);
});

test("a run that is spread becomes one for each device that matches, also for one that is away", async () => {
  const [a, b, away] = [await device(), await device({}, "two"), await enrolDevice(owner)];
  for (const { deviceId } of [a.identity, b.identity, away]) {
    await owner.fleet.labelDevice({ deviceId, add: ["everywhere"] });
  }
  const watcher = await watcherOf({ selector: '"everywhere" in labels', spread: SpreadMode.ALL });
  await owner.watchers.triggerWatcher({ watcherId: watcher.id });
  const attempts = [await takeOn(a.stream), await takeOn(b.stream)];
  expect(attempts[0]!.workId).not.toBe(attempts[1]!.workId);
  const { runs } = await owner.runs.listRuns({ watcherId: watcher.id });
  expect(runs.map(({ deviceId }) => deviceId).sort()).toEqual(
    [a.identity.deviceId, b.identity.deviceId, away.deviceId].sort(),
  );
  await a.stream.complete(attempts[0]!);
  await b.stream.complete(attempts[1]!);
  // The next trigger skips the disconnected device, whose run still waits.
  await owner.watchers.triggerWatcher({ watcherId: watcher.id });
  await takeOn(a.stream);
  await takeOn(b.stream);
  const all = (await owner.runs.listRuns({ watcherId: watcher.id })).runs;
  expect(all.filter(({ deviceId }) => deviceId === away.deviceId)).toHaveLength(1);
  expect(all).toHaveLength(5);
});

test("whatever happens, no run has two devices and no group more than its maximum", async () => {
  const seed = Number(process.env.PINION_SEED ?? Date.now() % 1_000_000);
  const random = createRandom(seed);
  const name = `random-${seed}`;
  const max = 2;
  const devices = await Promise.all(
    Array.from({ length: 4 }, (_, index) => device({ maxConcurrency: 2 }, index % 2 === 0 ? "one" : "two")),
  );
  for (const { identity } of devices) {
    await owner.fleet.labelDevice({ deviceId: identity.deviceId, add: [name] });
  }
  const isDone = new AbortController();
  onTestFinished(() => isDone.abort());
  const holders = new Map<string, string>();
  const doubled: string[] = [];
  const stored: string[] = [];
  /**
   * A device that accepts its assignments, disconnects with them now and then, and comes back on
   * the other replica.
   */
  async function live({ identity, stream: first }: { identity: Identity; stream: DeviceStream }) {
    let stream = first;
    while (!isDone.signal.aborted) {
      const attempt = await stream.next("assignment", 100).catch(() => undefined);
      if (!attempt) {
        const isOpen = await stream.beat().then(
          () => true,
          () => false,
        );
        if (!isOpen) stream = await connect(replicas.one.url, identity, { maxConcurrency: 2 });
        continue;
      }
      const { workId, attemptToken } = attempt;
      if ((holders.get(attemptToken) ?? identity.deviceId) !== identity.deviceId) doubled.push(workId);
      holders.set(attemptToken, identity.deviceId);
      if (random.next() < 0.1) {
        stream.send({ case: "reject", value: { ...nameOf(attempt), reason: RejectReason.BUSY } });
      } else {
        stream.accept(attempt);
        const { verdict } = await stream.complete(attempt);
        if (verdict === CompletionVerdict.STORED) stored.push(workId);
      }
      if (random.next() < 0.1) {
        stream.cancel();
        stream = await connect(replicas[random.next() < 0.5 ? "one" : "two"].url, identity, {
          maxConcurrency: 2,
        });
      }
    }
  }
  const lives = devices.map(live);
  let most = 0;
  const looking = (async () => {
    while (!isDone.signal.aborted) {
      const { rows } = await sql<{ active: number }>`
        select count(*)::int as active from run r join run_gate g on g.org_id = r.org_id and g.run_id = r.id
        where g.group_name = ${name} and not r.is_held`.execute(database.db);
      most = Math.max(most, rows[0]!.active);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  const spec: Spec = { selector: `"${name}" in labels`, group: { name, max }, maxAttempts: 5 };
  const watchers = await Promise.all(Array.from({ length: 10 }, () => watcherOf(spec)));
  const both = [replicas.one.clients, replicas.two.clients];
  const runs = await Promise.all(
    watchers.map(({ id }, index) => both[index % 2]!.watchers.triggerWatcher({ watcherId: id })),
  );
  // One after the other: each look is a request.
  for (const { run } of runs) await untilStatus(owner, { workId: run!.id }, RunStatus.COMPLETED, 60_000);
  isDone.abort();
  await Promise.all([...lives, looking]);
  expect(most, `seed ${seed}`).toBeLessThanOrEqual(max);
  expect(most).toBeGreaterThan(0);
  expect(doubled, `seed ${seed}`).toEqual([]);
  expect([...stored].sort()).toEqual(runs.map(({ run }) => run!.id).sort());
}, 90_000);

function nameOf(attempt: { workId: string; attemptToken: string }) {
  return { workId: attempt.workId, attemptToken: attempt.attemptToken };
}
