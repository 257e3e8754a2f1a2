/** Which replica records a slot ahead: the one whose session then claims the run at once. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { ClockInDoubt } from "../../../src/scheduler/slots/clock.ts";
import { LookAhead, materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import * as schedules from "../../../src/store/work/watchers/schedules.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import {
  type DeviceName,
  listRuns,
  openDevice,
  putSchedule,
  seedDevice,
  seedWatcher,
} from "../../support/rows.ts";
import { noteDoorbell } from "../../support/surroundings.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

/** A pass of a replica's look-ahead; `aheadMs` reaches every slot of the test. */
async function passOf(replicaId: string): Promise<void> {
  const { db } = database;
  const ahead = new LookAhead({ db, log, doorbell: noteDoorbell(), aheadMs: 60_000, replicaId });
  await ahead.pass(await schedules.lookAhead(db, 0, replicaId));
}

test("of two replicas each records ahead for its own devices, and either for devices that are away", async () => {
  const { db } = database;
  const soon = () => new Date(Date.now() + 20_000);
  const [here, there, away] = await Promise.all(Array.from({ length: 3 }, () => seedDevice(db)));
  await openDevice(db, here!, { replicaId: "here" });
  await openDevice(db, there!, { replicaId: "there" });
  const watchers: schedules.WatcherName[] = [];
  for (const device of [here!, there!, away!]) {
    const watcher = await seedWatcher(db, device, { schedule: "0 0 1 1 *" });
    await putSchedule(db, watcher, soon());
    watchers.push(watcher);
  }
  const counts = () => Promise.all(watchers.map(async (watcher) => (await listRuns(db, watcher)).length));
  await passOf("here");
  expect(await counts()).toEqual([1, 0, 1]);
  await passOf("there");
  expect(await counts()).toEqual([1, 1, 1]);
});

test("what no replica recorded ahead, any replica records when it is due; alone, a replica records all ahead", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  await openDevice(db, device, { replicaId: "there" });
  await openDevice(db, await seedDevice(db), { replicaId: "here" });
  const watcher = await seedWatcher(db, device, { schedule: "0 0 1 1 *" });
  await putSchedule(db, watcher, new Date(Date.now() + 20_000));
  await passOf("here");
  expect(await listRuns(db, watcher)).toEqual([]);
  await putSchedule(db, watcher, new Date());
  await materializeOnce(db, { doorbell: noteDoorbell(), log });
  expect(await listRuns(db, watcher)).toHaveLength(1);

  const second = await seedWatcher(db, device, { schedule: "0 0 1 1 *" });
  await putSchedule(db, second, new Date(Date.now() + 20_000));
  await sql`update replica set last_beat_at = now() - interval '1 hour' where id = 'there'`.execute(db);
  await passOf("here");
  expect(await listRuns(db, second)).toHaveLength(1);
});

test("a crowd is counted with all slots of its moment, so that its recording begins in time for all", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const at = new Date(Date.now() + 20_000);
  for (const seconds of [0, 1, 1, 1, 2]) {
    const watcher = await seedWatcher(db, device, { schedule: "0 0 1 1 *" });
    await putSchedule(db, watcher, new Date(at.getTime() + 1_000 * seconds));
  }
  const dueMs = at.getTime() + 1_000;
  expect(await schedules.findCrowd(db, 0, 2)).toEqual({ dueMs, slots: 4 });
  expect(await schedules.findCrowd(db, at.getTime(), 2)).toEqual({ dueMs, slots: 3 });
  expect(await schedules.findCrowd(db, 0, 6)).toBeUndefined();
});

/** As many watchers as `count`, due at one moment in 20 s; the first one's name. */
async function seedCrowd(count: number, device?: DeviceName): Promise<schedules.WatcherName> {
  const { db } = database;
  const watcher = await seedWatcher(db, device ?? (await seedDevice(db)), { schedule: "0 0 1 1 *" });
  await putSchedule(db, watcher, new Date(Date.now() + 20_000));
  await sql`
    with made as (
      insert into watcher
      select (jsonb_populate_record(w, jsonb_build_object('id', gen_random_uuid(), 'slug', 'crowd-' || i))).*
      from watcher w, generate_series(2, ${count}::int) i where w.id = ${watcher.watcherId}
      returning org_id, id
    ),
    revised as (
      insert into watcher_revision (org_id, watcher_id, version, name, prompt)
      select org_id, id, 1, 'crowd', '' from made
    )
    insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at)
    select m.org_id, m.id, p.next_slot_at, p.next_due_at
    from made m, schedule_position p where p.watcher_id = ${watcher.watcherId}`.execute(db);
  return watcher;
}

async function countRuns({ orgId }: schedules.WatcherName): Promise<{ runs: number; watchers: number }[]> {
  const { rows } = await sql<{ runs: number; watchers: number }>`
    select count(*)::int as runs, count(distinct watcher_id)::int as watchers from run
    where org_id = ${orgId}`.execute(database.db);
  return rows;
}

test("two passes at a time record a crowd, each slot once", async () => {
  const { db } = database;
  const watcher = await seedCrowd(1_200);
  const ahead = new LookAhead({ db, log, doorbell: noteDoorbell(), aheadMs: 60_000, replicaId: "here" });
  // 500 watchers in each pass: one after another they would need three.
  for (const _ of [1, 2]) await ahead.pass(await schedules.lookAhead(db, ahead.through, "here"));
  expect(await countRuns(watcher)).toEqual([{ runs: 1_200, watchers: 1_200 }]);
});

test("the next crowd begins by the rate at which the last one was recorded", async () => {
  const { db } = database;
  const watcher = await seedCrowd(2_000);
  const ahead = new LookAhead({ db, log, doorbell: noteDoorbell(), aheadMs: 200, replicaId: "here" });
  const passAt = async (dueMs: number) => {
    const dueAt = new Date(dueMs);
    await sql`update schedule_position set next_slot_at = ${dueAt}, next_due_at = ${dueAt}`.execute(db);
    return ahead.pass(await schedules.lookAhead(db, ahead.through, "here"));
  };
  const secondMs = Date.now() + 50_000;
  // 2,000 slots take a new replica 1.2 s by the rate that it assumes.
  expect(await passAt(secondMs)).toBe(secondMs - 1_200);
  // On a busy machine the moment may come before all are recorded: then the crowd gets another one.
  for (let tries = 0; tries < 5; tries++) {
    await sql`delete from run`.execute(db);
    await passAt(Date.now() + 1_000);
    await ahead.pass(await schedules.lookAhead(db, ahead.through, "here"));
    if ((await countRuns(watcher))[0]?.runs === 2_000) break;
  }
  expect(await countRuns(watcher)).toEqual([{ runs: 2_000, watchers: 2_000 }]);
  expect(await passAt(secondMs)).not.toBe(secondMs - 1_200);
});

test("beside another replica, a replica begins a crowd in time for its own share", async () => {
  const { db } = database;
  const [here, there] = [await seedDevice(db), await seedDevice(db)];
  await openDevice(db, here, { replicaId: "here" });
  await openDevice(db, there, { replicaId: "there" });
  const crowd = await seedCrowd(5_000, there);
  const own = await seedWatcher(db, here, { schedule: "0 0 1 1 *" });
  const dueMs = Date.now() + 2_800;
  await sql`update schedule_position set next_slot_at = ${new Date(dueMs)}, next_due_at = ${new Date(dueMs)}`.execute(
    db,
  );
  // By the rate that a new replica assumes, all slots take 3 s, and its own one the least time.
  const passOver = async (replicaId: string) => {
    const ahead = new LookAhead({ db, log, doorbell: noteDoorbell(), aheadMs: 200, replicaId });
    return ahead.pass(await schedules.lookAhead(db, 0, replicaId));
  };
  expect(await passOver("here")).toBe(dueMs - 100);
  expect(await listRuns(db, own)).toEqual([]);
  await passOver("there");
  expect(await countRuns(crowd)).toEqual([{ runs: 1_000, watchers: 1_000 }]);
});

test("beside another replica, what a failed pass had listed is recorded by the next ones", async () => {
  const { db } = database;
  const watcher = await seedCrowd(1_200);
  await openDevice(db, await seedDevice(db), { replicaId: "there" });
  let failures = 1;
  const judge = {
    require() {
      if (failures-- > 0) throw new ClockInDoubt("the test's clock");
    },
  };
  const ahead = new LookAhead({
    db,
    log,
    doorbell: noteDoorbell(),
    judge,
    aheadMs: 60_000,
    replicaId: "here",
  });
  const pass = async () => ahead.pass(await schedules.lookAhead(db, ahead.through, "here"));
  await expect(pass()).rejects.toThrow(ClockInDoubt);
  for (const _ of [1, 2]) await pass();
  expect(await countRuns(watcher)).toEqual([{ runs: 1_200, watchers: 1_200 }]);
});
