/** How claims are shared out among the seats that wait for work. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createLogger } from "../../../src/log.ts";
import { createDispatcher, type Seat } from "../../../src/scheduler/dispatcher.ts";
import { materializeOnce } from "../../../src/scheduler/materializer.ts";
import type { TurnEndings } from "../../../src/scheduler/turn-endings.ts";
import { useDatabase } from "../../support/database.ts";
import {
  type DeviceName,
  noteDoorbell,
  openDevice,
  orgId,
  policy,
  seedDevice,
  seedWatcher,
} from "../../support/rows.ts";
import { turnTimers } from "../../support/turns.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

/** So many due watchers of a device, as copies of one that was made the usual way. */
async function seedDue(device: DeviceName, count: number, dueAt: Date): Promise<void> {
  const { db } = database;
  const { watcherId } = await seedWatcher(db, device, { schedule: "0 0 1 1 *" });
  await sql`
    with copies as (
      insert into watcher (org_id, slug, name, agent_id, device_id, schedule, overlap, next_slot_at, next_due_at)
      select org_id, 'copy-' || right(id::text, 8) || '-' || i, name, agent_id, device_id, schedule, overlap, ${dueAt}, ${dueAt}
      from watcher, generate_series(1, ${count}::int) i where id = ${watcherId}
      returning org_id, id
    ) insert into watcher_revision (org_id, watcher_id, version, name, prompt) select org_id, id, 1, 'copy', 'x' from copies
  `.execute(db);
}

test("a seat with many free slots leaves room for the others in each claim, and gets all that is its own", async () => {
  const { db } = database;
  const [large, small] = [await seedDevice(db), await seedDevice(db)];
  await seedDue(large, 1_200, new Date(Date.now() - 2_000));
  await seedDue(small, 1, new Date(Date.now() - 1_000));
  while ((await materializeOnce(db, { doorbell: noteDoorbell(), log })) > 0);

  const delivered: string[] = [];
  const seatOf = async (device: DeviceName, slots: number): Promise<Seat> => {
    const { epoch } = await openDevice(db, device);
    let free = slots;
    return {
      ...{ orgId, deviceId: device.deviceId, epoch, kinds: null, mayHaveRuns: true, mayHaveTurns: false },
      freeSlots: () => free,
      deliver: (run) => {
        free -= 1;
        delivered.push(run.deviceId);
      },
      deliverTurn: () => {},
    };
  };
  const [many, one] = [await seatOf(large, 5_000), await seatOf(small, 1)];
  const claims: number[] = [];
  const dispatcher = createDispatcher({
    ...{ db, policy, log, doorbell: noteDoorbell() },
    turns: { timers: turnTimers, endings: {} as TurnEndings },
    onBatch: (seats) => {
      claims.push(seats);
      // It is woken while the first claim is under way.
      if (claims.length === 1) dispatcher.wake(one);
    },
  });
  dispatcher.wake(many);
  await dispatcher.idle();
  expect(delivered.filter((id) => id === large.deviceId)).toHaveLength(1_200);
  expect(delivered.indexOf(small.deviceId)).toBeGreaterThan(0);
  expect(claims.slice(0, 2)).toEqual([1, 2]);

  // Both have free slots, and nothing waits: nobody is asked until somebody says that there may be more.
  const asked = claims.length;
  dispatcher.wake(many);
  await dispatcher.idle();
  expect(claims).toHaveLength(asked);
  many.mayHaveRuns = true;
  dispatcher.wake(many);
  await dispatcher.idle();
  expect(claims).toHaveLength(asked + 1);
});
