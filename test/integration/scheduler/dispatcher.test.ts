/** The distribution of claims among the waiting seats. */
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { Dispatcher } from "../../../src/scheduler/dispatcher.ts";
import type { Endings } from "../../../src/scheduler/endings/endings.ts";
import type { Seat } from "../../../src/scheduler/seat.ts";
import { SecondLooks } from "../../../src/scheduler/second-looks.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import type { ClaimedRun } from "../../../src/store/work/runs/run-claims.ts";
import type { RecordedRun } from "../../../src/store/work/watchers/slot-rows.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { hold } from "../../support/locks.ts";
import {
  type DeviceName,
  openDevice,
  seedDevice,
  seedWatcher,
  seedWorker,
  sessionOf,
} from "../../support/rows.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";
import { turnTimers } from "../../support/turns.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

/** `count` due watchers of a device, as copies of a watcher created through the API. */
async function seedDue(device: DeviceName, count: number, dueAt: Date): Promise<void> {
  const { db } = database;
  const { watcherId } = await seedWatcher(db, device, { schedule: "0 0 1 1 *" });
  await sql`
    with copies as (
      insert into watcher (org_id, slug, name, agent_id, device_id, schedule, overlap)
      select org_id, 'copy-' || right(id::text, 8) || '-' || i, name, agent_id, device_id, schedule, overlap
      from watcher, generate_series(1, ${count}::int) i where id = ${watcherId}
      returning org_id, id
    ), positions as (
      insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at)
      select org_id, id, ${dueAt}, ${dueAt} from copies
    ) insert into watcher_revision (org_id, watcher_id, version, name, prompt) select org_id, id, 1, 'copy', 'x' from copies
  `.execute(db);
}

/** A device's session; its seat calls `given` with each assigned run. */
async function openSeat(device: DeviceName, slots: number, given: (run: ClaimedRun) => void): Promise<Seat> {
  const { epoch } = await openDevice(database.db, device);
  let free = slots;
  return {
    ...{ ...sessionOf(device, epoch), kinds: null, mayHave: { run: true, turn: false } },
    freeSlots: () => free,
    roomAhead: () => free,
    deliver(run) {
      free -= 1;
      given(run);
    },
    deliverTurn: () => {},
  };
}

function openDispatcher(onBatch: (seats: number) => void = () => {}, looks?: SecondLooks) {
  return new Dispatcher({
    ...{ db: database.db, policy, log, doorbell: noteDoorbell(), onBatch },
    onLess: (seat, kind) => looks?.passed(seat, kind),
    turns: { timers: turnTimers, endings: {} as Endings },
  });
}

test("a seat with many free slots leaves room for the others in each claim, and gets all that is its own", async () => {
  const { db } = database;
  const [large, small] = [await seedDevice(db), await seedDevice(db)];
  await seedDue(large, 1_200, new Date(Date.now() - 2_000));
  await seedDue(small, 1, new Date(Date.now() - 1_000));
  while ((await materializeOnce(db, { doorbell: noteDoorbell(), log })) > 0);

  const delivered: string[] = [];
  const seatOf = (device: DeviceName, slots: number) =>
    openSeat(device, slots, (run) => delivered.push(run.deviceId));
  const [many, one] = [await seatOf(large, 5_000), await seatOf(small, 1)];
  const claims: number[] = [];
  const dispatcher = openDispatcher((seats) => {
    claims.push(seats);
    // The wake-up comes while the first claim is under way.
    if (claims.length === 1) dispatcher.wake(one);
  });
  dispatcher.wake(many);
  await dispatcher.idle();
  expect(delivered.filter((id) => id === large.deviceId)).toHaveLength(1_200);
  expect(delivered.indexOf(small.deviceId)).toBeGreaterThan(0);
  expect(claims.slice(0, 2)).toEqual([1, 2]);

  // Both devices have free slots, and no run waits: no claims until a hint says that there may be
  // more runs.
  const asked = claims.length;
  dispatcher.wake(many);
  await dispatcher.idle();
  expect(claims).toHaveLength(asked);
  many.mayHave.run = true;
  dispatcher.wake(many);
  await dispatcher.idle();
  expect(claims).toHaveLength(asked + 1);
});

test("what is recorded for a device of this replica is claimed by the statement that records it, and pushed after its commit", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  await seedDue(device, 3, new Date(Date.now() - 2_000));
  const given: string[] = [];
  const seat = await openSeat(device, 2, (run) => given.push(run.runId));
  seat.mayHave.run = false;
  const claims: number[] = [];
  const dispatcher = openDispatcher((seats) => claims.push(seats));
  const doorbell = noteDoorbell();
  const told: RecordedRun[] = [];
  await materializeOnce(db, {
    log,
    doorbell: {
      ...doorbell,
      recorded(runs) {
        told.push(...runs);
        // The run is not pushed before this moment.
        expect(given).toEqual([]);
      },
    },
    hold: (devices) => dispatcher.hold(devices.map(() => seat)),
  });
  expect(given).toHaveLength(2);
  expect(told.flatMap((run) => (run.attemptToken ? [run.runId] : [])).sort()).toEqual([...given].sort());
  const { rows } = await sql<{ status: string; slots: number }>`
    select run.status, count(*)::int as slots from run
      join schedule_position s on s.watcher_id = run.watcher_id and run.xmin = s.xmin group by 1 order by 1`.execute(
    db,
  );
  expect(rows).toEqual([
    { status: "claimed", slots: 2 },
    { status: "pending", slots: 1 },
  ]);
  await dispatcher.idle();
  expect(claims).toEqual([1]);
});

test("what is claimed as it is recorded is what a claim would have answered", async () => {
  const { db } = database;
  const [device, other] = [await seedDevice(db), await seedDevice(db)];
  const dueAt = new Date(Date.now() - 2_000);
  for (const one of [device, other]) {
    await seedWatcher(db, one, { schedule: "0 0 1 1 *", agentKind: "test-kind", notification: "on_failure" });
  }
  await sql`update schedule_position set next_slot_at = ${dueAt}, next_due_at = ${dueAt}`.execute(db);
  const runs: ClaimedRun[] = [];
  const note = (run: ClaimedRun) => runs.push(run);
  const [seat, later] = [await openSeat(device, 1, note), await openSeat(other, 1, note)];
  seat.mayHave.run = false;
  const dispatcher = openDispatcher();
  const seatOf = (deviceId: string | null) => (deviceId === device.deviceId ? seat : undefined);
  await materializeOnce(db, {
    log,
    doorbell: noteDoorbell(),
    hold: (devices) => dispatcher.hold(devices.map(({ deviceId }) => seatOf(deviceId))),
  });
  dispatcher.wake(later);
  await dispatcher.idle();
  expect(runs).toHaveLength(2);
  const [recorded, claimed] = runs.map((run) => ({
    ...run,
    ...{ runId: "", deviceId: "", watcherId: "", watcherSlug: "", attemptToken: "", dueForMs: 0 },
  }));
  expect(recorded).toMatchObject(claimed!);
  const { rows } = await sql`
    select status, attempt, claimed_at is null as "isLate", claimed_epoch from run`.execute(db);
  expect(rows).toEqual(Array(2).fill({ status: "claimed", attempt: 1, isLate: false, claimed_epoch: 1 }));
});

test("nothing is claimed as it is recorded for a session that a newer one has replaced", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  await seedDue(device, 1, new Date(Date.now() - 2_000));
  const given: string[] = [];
  const seat = await openSeat(device, 1, (run) => given.push(run.runId));
  seat.mayHave.run = false;
  await openDevice(db, device);
  const dispatcher = openDispatcher();
  await materializeOnce(db, {
    log,
    doorbell: noteDoorbell(),
    hold: (devices) => dispatcher.hold(devices.map(() => seat)),
  });
  expect(given).toEqual([]);
  const { rows } = await sql`select status, attempt, attempt_token from run`.execute(db);
  expect(rows).toEqual([{ status: "pending", attempt: 0, attempt_token: null }]);
});

test("while a seat is held nothing else is claimed for it, and when it is dropped what waits is claimed", async () => {
  const { db } = database;
  const [device, other] = [await seedDevice(db), await seedDevice(db)];
  for (const one of [device, other]) await seedDue(one, 1, new Date(Date.now() - 2_000));
  await materializeOnce(db, { doorbell: noteDoorbell(), log });
  const given: string[] = [];
  const note = (run: ClaimedRun) => given.push(run.deviceId);
  const [seat, free] = [await openSeat(device, 1, note), await openSeat(other, 1, note)];
  const dispatcher = openDispatcher();
  // Older work may wait for the seat, and comes first.
  expect(dispatcher.hold([seat]).claimants).toEqual([undefined]);
  seat.mayHave.run = false;
  const held = dispatcher.hold([seat, seat]);
  expect(held.claimants.map((claimant) => claimant?.deviceId)).toEqual([device.deviceId, undefined]);
  expect(dispatcher.hold([seat]).claimants).toEqual([undefined]);
  seat.mayHave.run = true;
  dispatcher.wake(seat);
  dispatcher.wake(free);
  await dispatcher.idle();
  expect(given).toEqual([other.deviceId]);
  held.drop();
  await dispatcher.idle();
  expect(given).toEqual([other.deviceId, device.deviceId]);
});

test("passes at the same time share the room of a seat, and claim what they record", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const given: string[] = [];
  const seat = await openSeat(device, 3, (run) => given.push(run.runId));
  seat.mayHave.run = false;
  const claims: number[] = [];
  const dispatcher = openDispatcher((seats) => claims.push(seats));
  // A pass under way has one place of three.
  const first = dispatcher.hold([seat]);
  await seedDue(device, 3, new Date(Date.now() - 2_000));
  const doorbell = noteDoorbell();
  await materializeOnce(db, { log, doorbell, hold: (devices) => dispatcher.hold(devices.map(() => seat)) });
  expect(given).toHaveLength(2);
  expect(doorbell.noted.recorded.filter((run) => run.attemptToken === null)).toHaveLength(1);
  // The run beyond the room waits for a claim, which comes when no pass holds the seat.
  seat.mayHave.run = true;
  dispatcher.wake(seat);
  await dispatcher.idle();
  expect(given).toHaveLength(2);
  first.drop();
  await dispatcher.idle();
  expect(given).toHaveLength(3);
  expect(claims).toEqual([1, 1]);
});

test("a worker that was given less than it has room for asks again when it is woken: others may have held what it looked at", async () => {
  const { worker, epoch, kinds } = await seedWorker(database.db);
  const claims: number[] = [];
  const dispatcher = openDispatcher((seats) => claims.push(seats));
  const seat: Seat = {
    ...{ ...sessionOf(worker, epoch), kinds, mayHave: { run: true, turn: false } },
    freeSlots: () => 2,
    roomAhead: () => 0,
    deliver: () => {},
    deliverTurn: () => {},
  };
  for (let woken = 1; woken <= 3; woken++) {
    dispatcher.wake(seat);
    await dispatcher.idle();
    expect(claims).toHaveLength(woken);
  }
});

test("a run that was locked as it was claimed is claimed when it is free, and a seat with nothing left is looked at once", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  await seedDue(device, 2, new Date(Date.now() - 2_000));
  await materializeOnce(db, { doorbell: noteDoorbell(), log });
  const given: string[] = [];
  const seat = await openSeat(device, 5, (run) => given.push(run.runId));
  const claims: number[] = [];
  const woken: Seat[] = [];
  const looks = new SecondLooks({
    ...{ db, log },
    wake(one) {
      woken.push(one);
      dispatcher.wake(one);
    },
  });
  onTestFinished(() => looks.close());
  const dispatcher = openDispatcher((seats) => claims.push(seats), looks);
  await using held = await hold(db);
  const { rows } = await sql<{ id: string }>`select id from run limit 1 for update`.execute(held.tx);
  dispatcher.wake(seat);
  await dispatcher.idle();
  expect(given).toHaveLength(1);
  await held.tx.rollback().execute();
  await expect.poll(() => given).toHaveLength(2);
  expect(given).toContain(rows[0]?.id);
  await dispatcher.idle();
  const [claimed, wakes] = [claims.length, woken.length];
  // The last claim has found less than the room, and the look after it finds nothing that waits.
  await expect.poll(() => seat.mayHave.run).toBe(false);
  await sql`select pg_sleep(0.4)`.execute(db);
  expect([claims.length, woken.length]).toEqual([claimed, wakes]);
});
