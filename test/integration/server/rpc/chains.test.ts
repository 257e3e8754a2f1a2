/**
 * The end of a run starts the watchers that follow, in the transaction that stores the result, each
 * once.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { beforeAll, beforeEach, expect, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunSource, RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import { storeCurrent, storeLate } from "../../../../src/scheduler/endings/run-endings.ts";
import { transaction } from "../../../../src/store/pg/database.ts";
import * as liveRuns from "../../../../src/store/work/runs/live-runs.ts";
import * as watchers from "../../../../src/store/work/watchers/watchers.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice, type Identity } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { policy } from "../../../support/surroundings.ts";
import { getRun, takeOn, usePatientReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = usePatientReplicas(database, "one");
let laptop: Identity;
let stream: DeviceStream;
let count = 0;

beforeAll(async () => {
  laptop = await enrolDevice(replicas.one.clients);
});

beforeEach(async () => {
  stream = await connect(replicas.one.url, laptop, { maxConcurrency: 4 });
});

const { clients } = new Proxy({} as { clients: typeof replicas.one.clients }, {
  get: () => new Proxy({}, { get: (_, name) => replicas.one.clients[name as "runs"] }),
});

async function watcherOf(spec: MessageInitShape<typeof WatcherSpecSchema> = {}, slug = "") {
  count += 1;
  const { watcher } = await clients.watchers.createWatcher({
    slug,
    spec: { name: `Chain ${count}`, prompt: "do it", deviceId: laptop.deviceId, ...spec },
  });
  return watcher!;
}

const runsOf = async (watcherId: string) => (await clients.runs.listRuns({ watcherId })).runs;

/** Triggers a watcher, and ends the run until the acknowledgement. */
async function run(watcherId: string, end: { output?: string; outcome?: Outcome } = {}) {
  await clients.watchers.triggerWatcher({ watcherId });
  const assignment = await takeOn(stream);
  await stream.complete(assignment, end.output ?? "done", end.outcome ?? Outcome.COMPLETED);
  return assignment.workId;
}

test("when the result is acknowledged its follower's run is there, with the result as its input and in its prompt", async () => {
  const first = await watcherOf();
  const next = await watcherOf({
    prompt: "Say more of {{ input.result.output }}",
    after: [first.slug],
    afterCondition: 'run.status == "completed" && result.output.contains("leak")',
  });
  expect(next.spec!.after).toEqual([first.slug]);
  await run(first.id, { output: "all is well" });
  expect(await runsOf(next.id)).toEqual([]);

  const runId = await run(first.id, { output: "a leak" });
  const [started] = await runsOf(next.id);
  expect(started).toMatchObject({ source: RunSource.AFTER });
  const shown = await getRun(clients, { workId: started!.id });
  expect(shown.origin).toMatchObject({ afterRunId: runId, afterWatcherSlug: first.slug, depth: 1 });
  expect(toJson(ValueSchema, shown.input!)).toMatchObject({
    run: { id: runId, watcher: first.slug, status: "completed" },
    result: { output: "a leak" },
  });
  const assignment = await takeOn(stream);
  expect(assignment.workId).toBe(started!.id);
  expect(assignment.watcher!.prompt).toContain("Say more of `a leak`");
  await stream.complete(assignment);

  const { chain } = await clients.runs.explainRun({ runId });
  expect(chain.map((link) => [link.watcherSlug, link.depth, link.runId])).toEqual([
    [first.slug, 0, runId],
    [next.slug, 1, started!.id],
  ]);
});

test("a failure starts who asks for it and nobody else, and a false or broken condition is explained", async () => {
  const first = await watcherOf();
  const onFailure = await watcherOf({ after: [first.id], afterCondition: 'run.status == "failed"' });
  const plain = await watcherOf({ after: [first.id] });
  const broken = await watcherOf({ after: [first.id], afterCondition: "result.structured.severity > 3" });
  const runId = await run(first.id, { outcome: Outcome.FAILED });
  expect(await runsOf(onFailure.id)).toHaveLength(1);
  expect([await runsOf(plain.id), await runsOf(broken.id)]).toEqual([[], []]);
  const { chain } = await clients.runs.explainRun({ runId });
  const reasonOf = (watcher: { slug: string }) =>
    chain.find((link) => link.watcherSlug === watcher.slug)?.reason;
  expect(reasonOf(plain)).toBe("its condition was false");
  expect(reasonOf(broken)).toMatch(/error: field not found: structured/);
  const { events } = await clients.events.listEvents({ runId, kinds: ["watcher.after_failed"] });
  expect(events.map(({ data }) => data)).toEqual([
    { follower: broken.slug, reason: "after_condition: field not found: structured" },
  ]);
  await stream.complete(await takeOn(stream));
});

test("a circle, a watcher that follows itself, an unknown one and a chain of more than 10 are refused, also by an edit", async () => {
  const chain = [await watcherOf()];
  for (let length = 1; length <= 10; length++) chain.push(await watcherOf({ after: [chain.at(-1)!.slug] }));
  const refused = (watcherId: string, after: string[]) =>
    clients.watchers.updateWatcher({ watcherId, spec: { after }, updateMask: { paths: ["after"] } });
  await expect(watcherOf({ after: [chain[10]!.slug] })).rejects.toThrow(/a chain of 11/);
  await expect(refused(chain[0]!.id, [chain[10]!.slug])).rejects.toThrow(/circle/);
  await expect(refused(chain[0]!.id, [chain[0]!.slug])).rejects.toThrow(/follow itself/);
  await expect(refused(chain[0]!.id, ["nobody"])).rejects.toThrow(/no watcher "nobody"/);
  await expect(watcherOf({ after: [chain[0]!.slug], afterCondition: "runn.status" })).rejects.toThrow(
    /spec\.after_condition.*no "runn"/,
  );
  const [a, b] = [await watcherOf(), await watcherOf()];
  const third = await watcherOf({ after: [b.slug] });
  await refused(b.id, [a.slug]);
  await expect(refused(a.id, [third.slug])).rejects.toThrow(
    new RegExp(`"${a.slug}" follows "${third.slug}" follows "${b.slug}" follows "${a.slug}": a circle`),
  );
  // Two edits at once do not close a circle together.
  const [left, right] = [await watcherOf(), await watcherOf()];
  const edits = await Promise.allSettled([refused(left.id, [right.slug]), refused(right.id, [left.slug])]);
  expect(edits.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
});

test("a run that was lost starts nothing until its late result comes, and that starts each follower once", async () => {
  const first = await watcherOf();
  const always = await watcherOf({ after: [first.slug], afterCondition: "true" });
  const completed = await watcherOf({ after: [first.slug] });
  await clients.watchers.triggerWatcher({ watcherId: first.id });
  const assignment = await takeOn(stream);
  const attempt = {
    ...{ orgId: "local", deviceId: laptop.deviceId, isOutputTruncated: false, signal: "", reason: "" },
    ...{ workId: assignment.workId, attemptToken: assignment.attemptToken },
    ...{ exitCode: undefined, durationMs: 1, output: "late" },
  };
  const { db } = database;
  // Given up on by Pinion itself, as the reaper does.
  const { settleWithEvents } = await import("../../../../src/scheduler/endings/run-endings.ts");
  await transaction(db, (tx) =>
    settleWithEvents(
      tx,
      [{ ...attempt, deviceId: null, action: "finish", status: "timeout", reason: "lost", output: "" }],
      policy,
    ),
  );
  expect(await runsOf(always.id)).toHaveLength(1);
  expect(await runsOf(completed.id)).toHaveLength(0);
  const report = { ...attempt, status: "completed" as const };
  expect((await transaction(db, (tx) => storeCurrent(tx, [report], policy))).verdicts[0]!.verdict).toBe(
    "superseded",
  );
  const late = await transaction(db, (tx) => storeLate(tx, [report], policy));
  expect(late.verdicts[0]!.verdict).toBe("stored_late");
  expect(await runsOf(always.id)).toHaveLength(1);
  expect(await runsOf(completed.id)).toHaveLength(1);
  const again = await transaction(db, (tx) => storeLate(tx, [report], policy));
  expect(again.verdicts[0]!.verdict).toBe("already_stored");
  expect(await runsOf(completed.id)).toHaveLength(1);
  expect((await runsOf(first.id))[0]!.status).toBe(RunStatus.COMPLETED);
  for (const { id } of [...(await runsOf(always.id)), ...(await runsOf(completed.id))])
    await clients.runs.cancelRun({ runId: id });
});

test("a follower whose row somebody holds is started all the same, and the end does not wait for it", async () => {
  const first = await watcherOf();
  const next = await watcherOf({ after: [first.slug] });
  const held = await database.db.startTransaction().execute();
  await held.selectFrom("watcher").select("id").where("id", "=", next.id).forNoKeyUpdate().execute();
  await run(first.id);
  expect(await runsOf(next.id)).toEqual([]);
  await held.rollback().execute();
  const assignment = await takeOn(stream);
  expect(assignment.watcher!.id).toBe(next.id);
  await stream.complete(assignment);
});

test("an edit waits for no edit of the watcher that it makes its own follow, so two cannot deadlock", async () => {
  const [first, next] = [await watcherOf(), await watcherOf()];
  const follows = (after: string[]) =>
    clients.watchers.updateWatcher({ watcherId: next.id, spec: { after }, updateMask: { paths: ["after"] } });
  await using edit = await hold(database.db);
  await watchers.lock(edit.tx, { orgId: "local", watcher: first.id, for: "edit" });
  await edit.sent();
  expect((await follows([first.slug])).watcher!.spec!.after).toEqual([first.slug]);
  await edit.commit();
  await follows([]);
  // A device's right that is taken back pauses the watchers that need it, all in one transaction.
  await using pause = await hold(database.db);
  await liveRuns.lockWithWatchers(pause.tx, {
    ...{ orgId: "local", of: { watcherIds: [first.id] }, for: "edit" },
  });
  await pause.sent();
  expect((await follows([first.slug])).watcher!.spec!.after).toEqual([first.slug]);
});

test("an edit to follow a watcher that is being deleted is refused as one to follow a missing watcher", async () => {
  const [first, next] = [await watcherOf(), await watcherOf()];
  await using removal = await hold(database.db);
  await watchers.lock(removal.tx, { orgId: "local", watcher: first.id, for: "removal" });
  await watchers.remove(removal.tx, { orgId: "local", watcherId: first.id });
  await removal.sent();
  const edit = clients.watchers.updateWatcher({
    ...{ watcherId: next.id, spec: { after: [first.slug] }, updateMask: { paths: ["after"] } },
  });
  // The answer may come before the commit's own answer does.
  const refused = expect(edit).rejects.toMatchObject({ code: Code.InvalidArgument });
  await untilBlocked(database.db);
  await removal.commit();
  await refused;
});
