/**
 * Runs are recorded and claimed before their due time, and pushed when due: the events that may
 * come in between.
 */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { describe, expect, test, vi } from "vitest";
import { RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import type { Db } from "../../../../src/store/pg/database.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice, type Identity } from "../../../support/device.ts";
import { inNewOrg, startTestReplica, type TestReplica, useReplica } from "../../../support/server.ts";
import { getRun, startWork, untilStatus } from "../../../support/work.ts";

/** Far ahead, so that the actions of a test come before the due time, even on a busy machine. */
const farAhead = { PINION_LOOK_AHEAD_MS: "60000" };
const farMs = 30_000;
/**
 * A row's time is the start of its transaction, which may be a moment before the slot that the
 * transaction then found due.
 */
const begunMs = 100;

/** A watcher whose next slot falls due in `ms` milliseconds. */
async function dueIn(
  db: Db,
  replica: TestReplica,
  device: Identity,
  ms: number,
  spec: { prompt?: string } = {},
) {
  const { watcher } = await replica.clients.watchers.createWatcher({
    spec: {
      ...{ name: `due in ${ms}`, prompt: "do it", deviceId: device.deviceId, schedule: "0 0 1 1 *" },
      ...spec,
    },
  });
  const dueAt = new Date(Date.now() + ms);
  await sql`update schedule_position set next_slot_at = ${dueAt}, next_due_at = ${dueAt} where watcher_id = ${watcher!.id}`.execute(
    db,
  );
  return { watcherId: watcher!.id, dueAt, poke: () => pokeBy(replica, device) };
}

/** Any edit makes the materializer look. */
async function pokeBy({ clients }: TestReplica, device: Identity): Promise<void> {
  await clients.watchers.createWatcher({
    spec: { name: `poke ${Math.random()}`, prompt: "x", deviceId: device.deviceId },
  });
}

/** The watcher's only run, once recorded. */
async function recorded({ clients }: TestReplica, watcherId: string, status: RunStatus) {
  return vi.waitFor(
    async () => {
      const { runs } = await clients.runs.listRuns({ watcherId });
      expect(runs.map((run) => run.status)).toEqual([status]);
      return runs[0]!;
    },
    { timeout: 10_000, interval: 20 },
  );
}

/** Expects that the device has received all sent messages, and no assignment. */
async function hasNone(stream: Awaited<ReturnType<typeof connect>>): Promise<void> {
  await stream.beat();
  expect(stream.waiting("assignment")).toEqual([]);
}

const deviceOf = async (deviceId: string): Promise<Identity> => ({ deviceId }) as Identity;

describe("with a far look-ahead", () => {
  const database = useDatabase({ per: "file" });
  const replicaOfFile = useReplica(database, farAhead);

  /**
   * A device with a stream, and a watcher of the device whose run was recorded and claimed long
   * before its due time.
   */
  async function claimedAhead(hello: { maxConcurrency?: number } = {}) {
    const replica = await inNewOrg(replicaOfFile());
    const device = await enrolDevice(replica.clients);
    const stream = await connect(replica.url, device, hello);
    const { watcherId, dueAt, poke } = await dueIn(database.db, replica, device, farMs, {
      prompt: "as it was",
    });
    await poke();
    const run = await recorded(replica, watcherId, RunStatus.CLAIMED);
    return { replica, clients: replica.clients, device, stream, watcherId, dueAt, run };
  }

  test("R2: a run is claimed ahead and pushed when it is due by the database's clock, and never more than a millisecond before", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const device = await enrolDevice(replica.clients);
    const stream = await connect(replica.url, device, { maxConcurrency: 64 });
    const watchers: { watcherId: string; dueAt: Date }[] = [];
    for (let index = 0; index < 30; index++) {
      const { watcherId } = await dueIn(database.db, replica, device, 3_600_000 + index);
      watchers.push({ watcherId, dueAt: new Date() });
      await stream.beat();
    }
    const from = Date.now() + 4_000;
    for (const [index, watcher] of watchers.entries()) watcher.dueAt = new Date(from + 37 * index);
    await sql`
    update schedule_position s set next_slot_at = d.at, next_due_at = d.at
    from unnest(${watchers.map((one) => one.watcherId)}::uuid[], ${watchers.map((one) => one.dueAt)}::timestamptz[]) as d(id, at)
    where s.watcher_id = d.id`.execute(database.db);
    await pokeBy(replica, device);
    await stream.beat();
    for (const { watcherId, dueAt } of watchers) {
      const assignment = await stream.next("assignment");
      // Both clocks are this machine's.
      expect(performance.timeOrigin + performance.now() - dueAt.getTime()).toBeGreaterThan(-1);
      expect(assignment.watcher!.id).toBe(watcherId);
      expect(timestampMs(assignment.event!.firedAt!)).toBe(dueAt.getTime());
      stream.accept(assignment);
    }
    const { rows } = await sql<{ early: number }>`
    select count(*)::int as early from run where claimed_at < due_at and source = 'scheduled'
      and watcher_id = any(${watchers.map((one) => one.watcherId)}::uuid[])`.execute(database.db);
    expect(rows[0]!.early).toBe(30);
  });

  test("a run that is recorded ahead is shown as due in the future, and a trigger finds it", async () => {
    const { clients, watcherId, run, dueAt, stream } = await claimedAhead();
    expect(timestampMs(run.dueAt!)).toBe(dueAt.getTime());
    expect(timestampMs(run.scheduledFor!)).toBe(dueAt.getTime());
    const explained = await clients.runs.explainRun({ runId: run.id });
    expect(explained.summary).toMatch(/^Recorded ahead: it is due at .*, and claimed for device /);
    const triggered = await clients.watchers.triggerWatcher({ watcherId });
    expect(triggered).toMatchObject({ alreadyQueued: true, run: { id: run.id } });
    await hasNone(stream);
  });

  test("pausing a watcher cancels its run that is not due yet, and its device never hears of it", async () => {
    const { clients, watcherId, run, stream } = await claimedAhead();
    await clients.watchers.pauseWatcher({ watcherId, reason: "holidays" });
    expect(await getRun(clients, { workId: run.id })).toMatchObject({
      status: RunStatus.CANCELLED,
      reason: "the watcher was paused",
    });
    // The device's slot is free for other runs.
    await startWork(clients, { ...(await deviceOf(run.deviceId)) });
    const next = await stream.next("assignment");
    expect(next.workId).not.toBe(run.id);
    expect(stream.waiting("assignment")).toEqual([]);
    expect(stream.waiting("cancel")).toEqual([]);
  });

  test("a run that is not due yet is cancelled at once", async () => {
    const { clients, run, stream } = await claimedAhead();
    await clients.runs.cancelRun({ runId: run.id });
    expect(await getRun(clients, { workId: run.id })).toMatchObject({ status: RunStatus.CANCELLED });
    await hasNone(stream);
    expect(stream.waiting("cancel")).toEqual([]);
  });

  test("an edit leaves a run that was recorded ahead as it was recorded", async () => {
    const { clients, watcherId, run } = await claimedAhead();
    await clients.watchers.updateWatcher({
      watcherId,
      spec: { prompt: "as it is now", schedule: "0 0 2 2 *" },
      updateMask: { paths: ["prompt", "schedule"] },
    });
    expect(await getRun(clients, { workId: run.id })).toMatchObject({
      status: RunStatus.CLAIMED,
      watcherVersion: 1,
    });
    const { rows } = await sql<{ prompt: string }>`
    select prompt from watcher_revision v join run r on r.watcher_id = v.watcher_id and r.watcher_version = v.version
    where r.id = ${run.id}`.execute(database.db);
    expect(rows).toEqual([{ prompt: "as it was" }]);
  });

  test("a device that leaves gives back what was claimed for it, and has it again when it returns", async () => {
    const { clients, replica, device, run, stream } = await claimedAhead();
    stream.cancel();
    await untilStatus(clients, { workId: run.id }, RunStatus.PENDING);
    expect((await clients.runs.explainRun({ runId: run.id })).summary).toMatch(
      /^Recorded ahead: it is due at /,
    );
    const again = await connect(replica.url, device);
    await untilStatus(clients, { workId: run.id }, RunStatus.CLAIMED);
    await moveDue(run.id, 0);
    await hasNone(again);
  });

  /** Moves the due time of a waiting run: the next claim reads the new time. */
  async function moveDue(runId: string, ms: number): Promise<void> {
    await sql`update run set due_at = now() + ${ms} * interval '1 ms' where id = ${runId}`.execute(
      database.db,
    );
  }

  test("a run that a wrong clock recorded for a day to come is claimed by no session before that day", async () => {
    const { clients, run, stream, replica, device } = await claimedAhead();
    stream.cancel();
    await untilStatus(clients, { workId: run.id }, RunStatus.PENDING);
    await moveDue(run.id, 6 * 86_400_000);
    const again = await connect(replica.url, device);
    const { id: other } = await startWork(clients, device);
    expect((await again.next("assignment")).workId).toBe(other);
    expect(await getRun(clients, { workId: run.id })).toMatchObject({ status: RunStatus.PENDING });
  });

  test("a device that connects elsewhere takes its claim along, and is assigned the run once", async () => {
    const { clients, device, run, stream } = await claimedAhead();
    const other = await startTestReplica(database.url, farAhead);
    // The old replica has not heard of the new due time when the claim is repeated.
    await moveDue(run.id, 1_500);
    const moved = await connect(other.url, device);
    const assignment = await moved.next("assignment");
    expect(assignment).toMatchObject({ workId: run.id, attempt: 1 });
    moved.accept(assignment);
    await moved.complete(assignment);
    await untilStatus(clients, { workId: run.id }, RunStatus.COMPLETED);
    expect(stream.waiting("assignment")).toEqual([]);
  });

  test("a claim whose replica died is given back by the sweep of the device's next session", async () => {
    const { clients, device, run, replica, stream } = await claimedAhead();
    // The state left by a killed replica: the row is claimed, and no session holds the run.
    stream.cancel();
    await untilStatus(clients, { workId: run.id }, RunStatus.PENDING);
    const { rows } = await sql`
    update run set status = 'claimed', attempt = 1, attempt_token = gen_random_uuid(), claimed_at = now(),
      claimed_epoch = 1, claimed_session = gen_random_uuid() where id = ${run.id} returning id`.execute(
      database.db,
    );
    expect(rows).toHaveLength(1);
    await connect(replica.url, device);
    await vi.waitFor(async () => {
      const { rows: claims } = await sql<{ epoch: number }>`
      select claimed_epoch as epoch from run where id = ${run.id} and status = 'claimed'`.execute(
        database.db,
      );
      expect(claims).toEqual([{ epoch: 2 }]);
    });
  });

  test("what is not due yet uses no slot: a run that is asked for meanwhile begins at once, and the other one after it", async () => {
    const { clients, device, stream, run } = await claimedAhead();
    const asked = await startWork(clients, device);
    const first = await stream.next("assignment");
    expect(first.workId).toBe(asked.id);
    stream.accept(first);
    await stream.complete(first);
    await untilStatus(clients, { workId: asked.id }, RunStatus.COMPLETED);
    expect(await getRun(clients, { workId: run.id })).toMatchObject({ status: RunStatus.CLAIMED });
  });

  test("a run that falls due while its device's slots are used waits for one, and is pushed when it is free", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const device = await enrolDevice(replica.clients);
    const stream = await connect(replica.url, device);
    const spec = { name: "asked for", prompt: "now", deviceId: device.deviceId };
    const { watcher } = await replica.clients.watchers.createWatcher({ spec });
    const { watcherId, poke, dueAt } = await dueIn(database.db, replica, device, 6_000);
    await poke();
    const run = await recorded(replica, watcherId, RunStatus.CLAIMED);
    const { run: asked } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    const first = await stream.next("assignment");
    expect(first.workId).toBe(asked?.id);
    stream.accept(first);
    await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(dueAt.getTime() + 100), 12_000);
    await stream.beat([first]);
    expect(stream.waiting("assignment")).toEqual([]);
    await stream.complete(first);
    expect((await stream.next("assignment")).workId).toBe(run.id);
  });
});

describe("with the usual look-ahead", () => {
  const database = useDatabase({ per: "file" });
  const replicaOfFile = useReplica(database);

  test("pausing leaves a run that is due already as it is", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const device = await enrolDevice(replica.clients);
    const stream = await connect(replica.url, device);
    const run = await startWork(replica.clients, device, { schedule: "0 0 1 1 *" });
    const assignment = await stream.next("assignment");
    stream.accept(assignment);
    await stream.beat([assignment]);
    await replica.clients.watchers.pauseWatcher({ watcherId: run.watcherId });
    await stream.complete(assignment);
    await untilStatus(replica.clients, { workId: run.id }, RunStatus.COMPLETED);
  });

  test("while a run of the watcher is active its next slot is decided when it is due, not before", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const device = await enrolDevice(replica.clients);
    const stream = await connect(replica.url, device);
    const active = await startWork(replica.clients, device, { schedule: "0 0 1 1 *" });
    const dueAt = new Date(Date.now() + 1_500);
    await sql`update schedule_position set next_slot_at = ${dueAt}, next_due_at = ${dueAt} where watcher_id = ${active.watcherId}`.execute(
      database.db,
    );
    await pokeBy(replica, device);
    const assignment = await stream.next("assignment");
    stream.accept(assignment);
    await stream.beat([assignment]);
    const runs = await vi.waitFor(
      async () => {
        const answer = await replica.clients.runs.listRuns({ watcherId: active.watcherId });
        expect(answer.runs).toHaveLength(2);
        return answer.runs;
      },
      { timeout: 10_000, interval: 20 },
    );
    expect(runs[0]).toMatchObject({ status: RunStatus.SKIPPED, skipReason: SkipReason.OVERLAP });
    expect(timestampMs(runs[0]!.createdAt!)).toBeGreaterThan(dueAt.getTime() - begunMs);
  });
});

describe("without a look-ahead", () => {
  const database = useDatabase();

  test("with no look-ahead nothing is recorded before it is due", async () => {
    const replica = await startTestReplica(database.url, { PINION_LOOK_AHEAD_MS: "0" });
    const device = await enrolDevice(replica.clients);
    const stream = await connect(replica.url, device);
    const { poke, dueAt } = await dueIn(database.db, replica, device, 700);
    await poke();
    const assignment = await stream.next("assignment");
    const { run } = await replica.clients.runs.getRun({ runId: assignment.workId });
    expect(timestampMs(run!.createdAt!)).toBeGreaterThan(dueAt.getTime() - begunMs);
  });
});
