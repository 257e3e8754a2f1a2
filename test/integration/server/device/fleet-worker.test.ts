/** Fleet workers through real replicas: their runs, and the loss of a worker or of its replica. */
import { randomUUID } from "node:crypto";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import {
  CompletionVerdict,
  DrainReason,
  HeldAttemptState,
  HeldVerdict,
  Outcome,
} from "#gen/pinion/v1/device_pb.js";
import { RunSource, RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { notify } from "../../../../src/store/pg/listener.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { inNewOrg, inOneNewOrg, startTestReplica } from "../../../support/server.ts";
import { startTurn } from "../../../support/talk.ts";
import { getRun, heldOf, startWork, takeOn, untilStatus, useReplicas } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here", "there");

const unpinned = { deviceId: "" };
const nobody = { deviceId: "", installId: "", token: "", label: "" };

/** The sweep is far away: a prompt arrival came from a notification. */
const promptMs = 10_000;

test("an unpinned run is pushed at once to a worker on another replica, and its result is stored", async () => {
  const { here, there } = await inOneNewOrg(replicas);
  const worker = workerIdentity(await fleetToken(here.clients));
  const stream = await connectWorker(there.url, worker);
  const startedAt = performance.now();
  const run = await startWork(here.clients, nobody, unpinned);
  const assignment = await takeOn(stream);
  expect(performance.now() - startedAt).toBeLessThan(promptMs);
  expect(assignment.workId).toBe(run.id);
  expect(await untilStatus(here.clients, assignment, RunStatus.RUNNING)).toMatchObject({
    deviceId: worker.deviceId,
  });
  expect((await stream.complete(assignment, "done")).verdict).toBe(CompletionVerdict.STORED);
  expect(await getRun(here.clients, assignment)).toMatchObject({
    status: RunStatus.COMPLETED,
    deviceId: worker.deviceId,
  });
});

test("a worker that connects takes what waits, as much as it has slots, and a freed slot is filled at once", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const ids = [];
  for (let i = 0; i < 3; i++) ids.push((await startWork(clients, nobody, unpinned)).id);
  const stream = await connectWorker(url, workerIdentity(await fleetToken(clients)), { maxConcurrency: 2 });
  const first = await takeOn(stream);
  const second = await takeOn(stream, first);
  expect(stream.waiting("assignment")).toEqual([]);
  const startedAt = performance.now();
  await stream.complete(first);
  const third = await takeOn(stream, second);
  expect(performance.now() - startedAt).toBeLessThan(promptMs);
  expect([first, second, third].map(({ workId }) => workId)).toEqual(ids);
});

test("a worker that has fallen silent gets no further work, until it is heard again", async () => {
  const { clients, url } = await inNewOrg(
    await startTestReplica(database.url, { PINION_HEARTBEAT_TTL_MS: "60000" }),
  );
  const token = await fleetToken(clients);
  const silent = await connectWorker(url, workerIdentity(token), { maxConcurrency: 1 });
  const now = performance.now.bind(performance);
  const ahead = vi.spyOn(performance, "now").mockImplementation(() => now() + 46_000);
  onTestFinished(() => ahead.mockRestore());
  const run = await startWork(clients, nobody, unpinned);
  const other = await connectWorker(url, workerIdentity(token), { maxConcurrency: 1 });
  expect((await takeOn(other)).workId).toBe(run.id);
  const next = await startWork(clients, nobody, unpinned);
  await silent.beat();
  expect((await takeOn(silent)).workId).toBe(next.id);
});

test("a device never gets an unpinned run, and a worker never a pinned one, also while its device is away", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const device = await enrolDevice(clients);
  const deviceStream = await connect(url, device, { maxConcurrency: 8 });
  const waiting = await startWork(clients, nobody, unpinned);
  await deviceStream.beat();
  expect(deviceStream.waiting("assignment")).toEqual([]);
  deviceStream.cancel();
  const pinned = await startWork(clients, device);
  const stream = await connectWorker(url, workerIdentity(await fleetToken(clients)), { maxConcurrency: 8 });
  expect((await takeOn(stream)).workId).toBe(waiting.id);
  await stream.beat();
  expect(stream.waiting("assignment")).toEqual([]);
  expect(await getRun(clients, { workId: pinned.id })).toMatchObject({
    status: RunStatus.PENDING,
    deviceId: device.deviceId,
  });
});

test("a retry goes from the worker that failed to another one, and the first one's late word changes nothing", async () => {
  const { clients, url } = await inNewOrg(
    await startTestReplica(database.url, { PINION_RETRY_BACKOFF_MS: "500" }),
  );
  const token = await fleetToken(clients);
  const one = await connectWorker(url, workerIdentity(token));
  await startWork(clients, nobody, { ...unpinned, maxAttempts: 2 });
  const failed = await takeOn(one);
  // The blocker takes the first worker's only slot as soon as the slot is free, so that the retry
  // goes to another worker.
  await startWork(clients, nobody, unpinned);
  await one.complete(failed, "", Outcome.FAILED, "no luck");
  await takeOn(one);
  const other = await connectWorker(url, workerIdentity(token));
  const again = await takeOn(other);
  expect(again).toMatchObject({ workId: failed.workId });
  expect(again.attemptToken).not.toBe(failed.attemptToken);
  const ops = createClients({ url, token: token.secret });
  const late = {
    workId: failed.workId,
    attemptToken: failed.attemptToken,
    outcome: Outcome.COMPLETED,
    output: "late",
  };
  const answer = await ops.device.completeRun({ completion: late });
  // The failure was stored as the end of the attempt; the late report adds no second end.
  expect(answer.verdict).toBe(CompletionVerdict.ALREADY_STORED);
  await other.complete(again, "second");
  const { windows } = await clients.runs.listWindows({ runId: failed.workId });
  expect(windows.map((window) => window.extractedData?.output)).toEqual(["second"]);
  ops.close();
});

test("a result whose acknowledgement was lost is answered as stored when the worker comes back", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const worker = workerIdentity(await fleetToken(clients));
  const stream = await connectWorker(url, worker);
  await startWork(clients, nobody, unpinned);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "once");
  stream.cancel();
  const firstId = worker.deviceId;
  const back = await connectWorker(url, worker, { held: [heldOf(assignment, HeldAttemptState.FINISHED)] });
  expect(worker.deviceId).toBe(firstId);
  expect(back.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.ALREADY_STORED);
  expect((await back.complete(assignment, "once")).verdict).toBe(CompletionVerdict.ALREADY_STORED);
  const { windows } = await clients.runs.listWindows({ runId: assignment.workId });
  expect(windows).toHaveLength(1);
});

test("a worker without a stream reports by the unary call, and only what its token's workers had", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const token = await fleetToken(clients);
  const stream = await connectWorker(url, workerIdentity(token));
  await startWork(clients, nobody, unpinned);
  const { workId, attemptToken } = await takeOn(stream);
  stream.cancel();
  const completion = { workId, attemptToken, outcome: Outcome.COMPLETED, output: "unary" };
  const stranger = createClients({ url, token: (await fleetToken(clients)).secret });
  await expect(stranger.device.completeRun({ completion })).rejects.toThrow(/no worker of this token/);
  const moment = timestampNow();
  const run = { watcherId: randomUUID(), attempt: 1, source: RunSource.MANUAL };
  const reoffer = { ...run, windowStart: moment, windowEnd: moment };
  // A lost attempt's worker is not known, so the result is not refused for good.
  await expect(stranger.device.completeRun({ completion: { ...completion, reoffer } })).rejects.toMatchObject(
    { reason: "failed_precondition", message: expect.stringMatching(/worker's stream/) },
  );
  const own = createClients({ url, token: token.secret });
  expect(await own.device.completeRun({ completion })).toMatchObject({ verdict: CompletionVerdict.STORED });
  own.close();
  stranger.close();
});

test("a replica that stops drains its workers, whose attempts go on elsewhere", async () => {
  const own = await startTestReplica(database.url);
  const { first, second } = await inOneNewOrg({ first: own, second: replicas.here });
  const worker = workerIdentity(await fleetToken(first.clients));
  const stream = await connectWorker(first.url, worker);
  await startWork(second.clients, nobody, unpinned);
  const assignment = await takeOn(stream);
  const stopping = first.stop();
  expect((await stream.next("drain")).reason).toBe(DrainReason.SHUTDOWN);
  stream.end();
  const back = await connectWorker(second.url, worker, { held: [heldOf(assignment)] });
  expect(back.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.CONTINUE);
  expect((await back.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
  await stopping;
});

test("ExplainRun says in words and fields why an unpinned run waits", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const run = await startWork(clients, nobody, { ...unpinned, agentKind: "codex" });
  const explain = async () => {
    const { summary, nextStep, facts } = await clients.runs.explainRun({ runId: run.id });
    return { summary, nextStep, facts: Object.fromEntries(facts.map(({ kind, text }) => [kind, text])) };
  };
  let why = await explain();
  expect(why.summary).toMatch(/pinned to no device, and no fleet worker of this org is connected\.$/);
  expect(why.nextStep).toContain("`pinion worker`");
  expect(why.facts.fleet).toBe("0 fleet workers connected, 0 of them can run it");

  const token = await fleetToken(clients);
  const claude = await connectWorker(url, workerIdentity(token, "claude-box"), {
    agentKinds: ["claude-code"],
  });
  why = await explain();
  expect(why.summary).toContain(
    'asks for agent kind "codex"; 1 fleet worker is connected, but none offers it (they offer claude-code)',
  );
  expect(why.facts.agent_kinds).toBe("asks for codex; offered: claude-code");
  claude.cancel();
  await vi.waitFor(async () =>
    expect((await explain()).summary).toMatch(/The last one, claude-box, was heard of at /),
  );
  expect((await explain()).facts.last_worker).toContain("claude-box");

  const codex = await connectWorker(url, workerIdentity(token), { agentKinds: ["codex"] });
  await takeOn(codex);
  const next = await startWork(clients, nobody, unpinned);
  const { summary } = await clients.runs.explainRun({ runId: next.id });
  expect(summary).toMatch(/all 1 slots of the fleet workers that can run it are used; 1 run waits/);
});

test("a deleted device's watcher is not the fleet's until somebody says so", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const device = await enrolDevice(clients);
  const stream = await connectWorker(url, workerIdentity(await fleetToken(clients)));
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Orphan", prompt: "p", deviceId: device.deviceId, schedule: "* * * * * *" },
  });
  await clients.fleet.deleteDevice({ deviceId: device.deviceId });
  const orphan = await vi.waitFor(async () => {
    const { watcher: now } = await clients.watchers.getWatcher({ watcherId: watcher!.id });
    expect(now!.unrunnableSlots).toBeGreaterThan(0);
    return now!;
  }, 5_000);
  expect(orphan).toMatchObject({
    status: WatcherStatus.NO_EXECUTOR,
    noExecutorReason: expect.stringMatching(/was deleted/),
  });
  await expect(clients.watchers.triggerWatcher({ watcherId: watcher!.id })).rejects.toThrow(
    /device was deleted/,
  );
  expect(stream.waiting("assignment")).toEqual([]);
  await clients.watchers.updateWatcher({
    watcherId: watcher!.id,
    spec: { deviceId: "" },
    updateMask: { paths: ["device_id"] },
  });
  expect((await takeOn(stream)).watcher!.id).toBe(watcher!.id);
  const { watcher: adopted } = await clients.watchers.getWatcher({ watcherId: watcher!.id });
  expect(adopted).toMatchObject({ status: WatcherStatus.ACTIVE, noExecutorReason: "", unrunnableSlots: 0 });
});

test("a watcher whose agent is gone skips its slots, counts them, and goes on by itself when the agent is back", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const stream = await connectWorker(url, workerIdentity(await fleetToken(clients)));
  await clients.agents.createAgent({ agentId: "helper", name: "Helper" });
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Served", prompt: "p", agentId: "helper", schedule: "* * * * * *" },
  });
  const first = await takeOn(stream);
  await clients.agents.deleteAgent({ agentId: "helper" });
  await stream.complete(first);
  await vi.waitFor(async () => {
    const { watchers } = await clients.watchers.listWatchers({});
    expect(watchers[0]).toMatchObject({ noExecutorReason: 'agent "helper" does not exist' });
    expect(watchers[0]!.unrunnableSlots).toBeGreaterThanOrEqual(2);
  }, 8_000);
  const skipped = await clients.runs.listRuns({ watcherId: watcher!.id, statuses: [RunStatus.SKIPPED] });
  expect(skipped.runs.map((run) => run.skipReason)).toContain(SkipReason.NO_EXECUTOR);
  await expect(clients.watchers.triggerWatcher({ watcherId: watcher!.id })).rejects.toThrow(
    /agent does not exist; make an agent with its id again/,
  );
  await clients.agents.createAgent({ agentId: "helper", name: "Helper" });
  expect((await takeOn(stream)).watcher!.id).toBe(watcher!.id);
  const { watcher: back } = await clients.watchers.getWatcher({ watcherId: watcher!.id });
  expect(back).toMatchObject({ noExecutorReason: "", unrunnableSlots: 0, status: WatcherStatus.ACTIVE });
});

test("a disconnect that comes late ends the stream that it was meant for, and no newer one", async () => {
  const { here, there, orgId } = await inOneNewOrg(replicas);
  const device = await enrolDevice(here.clients);
  const { deviceId } = device;
  await connect(there.url, device);
  const newer = await connect(there.url, device);
  const channel = `pinion_${there.replicaId}`;
  const late = (epoch: number) => {
    const message = { kind: "disconnect", orgId, deviceId, epoch, reason: "operator" };
    return notify(database.db, channel, [JSON.stringify({ from: here.replicaId, messages: [message] })]);
  };
  await late(1);
  // A hint sent after this one is also heard after it.
  await startWork(here.clients, device);
  const assignment = await takeOn(newer);
  expect(newer.waiting("drain")).toEqual([]);
  await newer.complete(assignment);
  await here.clients.fleet.disconnectDevice({ deviceId });
  expect((await newer.next("drain")).reason).toBe(DrainReason.OPERATOR);
});

describe("with a trigger in the database", () => {
  const database = useDatabase();

  test.each(["run", "turn"] as const)(
    "a worker whose stream breaks while a %s is claimed for it leaves it to another one, at once",
    async (what) => {
      const { db } = database;
      const here = await startTestReplica(database.url);
      const there = await startTestReplica(database.url);
      const token = await fleetToken(here.clients);
      const lost = await connectWorker(here.url, workerIdentity(token));
      // The claim waits while this lock is held.
      const lock = 4711;
      await sql`create function wait_for_test() returns trigger language plpgsql as
      ${sql.lit(`begin perform pg_advisory_xact_lock(${lock}); return new; end`)}`.execute(db);
      await sql`create trigger wait_for_test before update on ${sql.table(what)} for each row
      when (old.status = 'pending' and new.status = 'claimed') execute function wait_for_test()`.execute(db);
      await using claiming = await hold(db);
      await sql`select pg_advisory_xact_lock(${sql.lit(lock)})`.execute(claiming.tx);
      const { id } =
        what === "run"
          ? await startWork(here.clients, nobody, unpinned)
          : await startTurn(here.clients, { userId: "ada" });
      await untilBlocked(db, 1);
      // The end of the session waits for the claim.
      lost.cancel();
      await untilBlocked(db, 2);
      const other = await connectWorker(there.url, workerIdentity(token));
      await other.beat();
      expect(other.waiting("assignment")).toEqual([]);
      await claiming.commit();
      expect(await other.next("assignment", promptMs)).toMatchObject({ workId: id, attempt: 1 });
    },
  );
});
