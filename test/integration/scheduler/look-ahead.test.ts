/** Which replica records a slot ahead: the one whose session then claims the run at once. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createLogger } from "../../../src/log.ts";
import { LookAhead, materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import * as schedules from "../../../src/store/work/watchers/schedules.ts";
import { useDatabase } from "../../support/database.ts";
import { listRuns, openDevice, putSchedule, seedDevice, seedWatcher } from "../../support/rows.ts";
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
