/** R8: a payload that cannot be executed fails its own run, once, and affects no other run. */
import { expect, test, vi } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { Db } from "../../../src/store/pg/database.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { findWatcher, hourly, listKinds, listRuns, listWindows, orgId } from "../../support/rows.ts";
import { startTestReplica } from "../../support/server.ts";

const database = useDatabase();

const spoiled: [what: string, spoil: (db: Db) => Promise<unknown>, reason: RegExp][] = [
  [
    "window is empty",
    (db) =>
      db
        .updateTable("run")
        .set((eb) => ({ window_start: eb.ref("window_end") }))
        .execute(),
    /window is empty/,
  ],
  [
    "watcher's version is gone",
    (db) => db.updateTable("run").set({ watcher_version: 99 }).execute(),
    /version 99 of the watcher does not exist/,
  ],
  [
    "agent is gone",
    (db) => db.updateTable("run").set({ agent_id: "nobody" }).execute(),
    /agent "nobody" does not exist/,
  ],
  [
    "agent's settings cannot be read",
    (db) =>
      db
        .updateTable("agent_revision")
        .set({ settings: { identity: 7 } })
        .execute(),
    /assignment could not be made/,
  ],
];

for (const [what, spoil, reason] of spoiled) {
  test(`R8: a run whose ${what} fails once, and its device is never bothered with it`, async () => {
    const { db } = database;
    const { clients, url } = await startTestReplica(database.url);
    const device = await enrolDevice(clients);
    const { watcher } = await clients.watchers.createWatcher({
      spec: { name: "Bad", prompt: "say it", deviceId: device.deviceId, schedule: hourly().schedule },
    });
    const named = { orgId, watcherId: watcher!.id };
    const before = await findWatcher(db, named);
    const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    await spoil(db);
    const stream = await connect(url, device);
    await vi.waitFor(async () => {
      expect(await listKinds(db, { runId: run!.id })).toContain("run.failed");
    }, 10_000);
    await stream.beat();
    expect(stream.waiting("assignment")).toEqual([]);
    const { run: ended } = await clients.runs.getRun({ runId: run!.id });
    expect(ended).toMatchObject({ status: RunStatus.FAILED, attempt: 1 });
    expect(ended!.reason).toMatch(reason);
    expect(await listKinds(db, { runId: run!.id })).toEqual(["run.created", "run.failed"]);
    expect(await listWindows(db, { runId: run!.id })).toEqual([]);
    expect(await findWatcher(db, named)).toMatchObject({
      next_slot_at: before.next_slot_at,
      consecutive_failures: 1,
      status: "active",
    });
    expect(await listRuns(db, named)).toHaveLength(1);
  });
}

test("R8: a run that cannot be executed does not keep its device from the next one", async () => {
  const { clients, url } = await startTestReplica(database.url);
  const device = await enrolDevice(clients);
  const create = async (name: string) =>
    (await clients.watchers.createWatcher({ spec: { name, prompt: "say it", deviceId: device.deviceId } }))
      .watcher!;
  await clients.watchers.triggerWatcher({ watcherId: (await create("Bad")).id });
  await database.db.updateTable("run").set({ agent_version: 99 }).execute();
  const good = await create("Good");
  await clients.watchers.triggerWatcher({ watcherId: good.id });
  const stream = await connect(url, device);
  expect((await stream.next("assignment")).watcher?.id).toBe(good.id);
});
