/** R4: a pinned run belongs to its device, and keeps the settings of its materialization. */
import { expect, test } from "vitest";
import * as attempts from "../../../src/store/work/attempts/attempts.ts";
import { valuesOf } from "../../../src/store/work/watchers/watcher-values.ts";
import * as usecases from "../../../src/usecases/watchers.ts";
import { useDatabase } from "../../support/database.ts";
import { hold, untilBlocked } from "../../support/locks.ts";
import {
  claim,
  findRun,
  openDevice,
  reportOf,
  seedDevice,
  seedOrg,
  seedRunning,
  seedWatcher,
  triggerRun,
} from "../../support/rows.ts";
import { policy, storeOnce, surroundings } from "../../support/surroundings.ts";

const database = useDatabase();

test("R4: another device's claim gets nothing, in the same org or in another one", async () => {
  const { db } = database;
  const mine = await seedDevice(db);
  const other = await seedDevice(db);
  await seedOrg(db, "elsewhere");
  const foreign = await seedDevice(db, { orgId: "elsewhere" });
  const run = await triggerRun(db, await seedWatcher(db, mine));
  const epochs = await Promise.all([mine, other, foreign].map((device) => openDevice(db, device)));
  expect(await claim(db, other, epochs[1]!.epoch, 64)).toEqual([]);
  expect(await claim(db, foreign, epochs[2]!.epoch, 64)).toEqual([]);
  expect(await claim(db, { ...mine, orgId: "elsewhere" }, epochs[0]!.epoch, 64)).toEqual([]);
  expect(await claim(db, mine, epochs[0]!.epoch, 64)).toMatchObject([{ runId: run.id }]);
});

test("R4: a session that was replaced claims nothing any more", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const older = await openDevice(db, device);
  const newer = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device));
  expect(await claim(db, device, older.epoch)).toEqual([]);
  expect(await claim(db, device, newer.epoch)).toHaveLength(1);
});

test("R4: a claim of the old session that meets a new hello is never lost between the two", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const older = await openDevice(db, device);
  const run = await triggerRun(db, await seedWatcher(db, device));
  await using claiming = await hold(db);
  expect(await claim(claiming.tx, device, older.epoch)).toHaveLength(1);
  const hello = openDevice(db, device);
  await untilBlocked(db);
  await claiming.commit();
  const newer = await hello;
  // The device does not hold the run, so the run was withdrawn, and the new session has it.
  expect(newer.settled).toMatchObject([{ runId: run.id, action: "withdrawn" }]);
  expect(await claim(db, device, newer.epoch)).toMatchObject([{ runId: run.id, attempt: 1 }]);
});

test("R4: two claims of one device at once get each run once, and no more than the slots", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  for (let i = 0; i < 3; i++) await triggerRun(db, await seedWatcher(db, device));
  await using first = await hold(db);
  const one = await claim(first.tx, device, epoch, 2);
  const other = await claim(db, device, epoch, 2);
  await first.commit();
  expect([one.length, other.length]).toEqual([2, 1]);
  expect(new Set([...one, ...other].map((run) => run.runId)).size).toBe(3);
});

test("R4: the oldest due runs are claimed first, one slot at a time", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const wanted: string[] = [];
  for (let i = 0; i < 3; i++) wanted.push((await triggerRun(db, await seedWatcher(db, device))).id);
  const got: string[] = [];
  for (let i = 0; i < 3; i++) got.push((await claim(db, device, epoch))[0]!.runId);
  expect(got).toEqual(wanted);
});

test("R4: edits of the watcher and its agent do not reach a run that waits already", async () => {
  const { db } = database;
  const mine = await seedDevice(db);
  const other = await seedDevice(db);
  const { epoch } = await openDevice(db, mine);
  const otherOpening = await openDevice(db, other);
  const watcher = await seedWatcher(db, mine, {
    prompt: "old",
    agentKind: "claude-code",
    notification: "always",
    timeoutMs: 5_000,
    extractionSchema: { type: "object" },
  });
  await triggerRun(db, watcher);
  await usecases.update(
    db,
    {
      orgId: watcher.orgId,
      watcher: watcher.watcherId,
      actor: "pinion",
      expectedVersion: 0,
      change: (current) => ({
        ...valuesOf(current),
        name: "New",
        prompt: "new",
        deviceId: other.deviceId,
        agentKind: "codex",
        notification: "none",
        timeoutMs: 9_000,
        extractionSchema: null,
      }),
      isPinDecided: true,
    },
    surroundings,
  );
  await db
    .insertInto("agent_revision")
    .values({
      org_id: mine.orgId,
      agent_id: "pinion-default",
      version: 2,
      name: "Other",
      settings: { identity: "other" },
    })
    .execute();
  await db.updateTable("agent").set({ version: 2, name: "Other" }).execute();
  expect(await claim(db, other, otherOpening.epoch)).toEqual([]);
  expect(await claim(db, mine, epoch)).toMatchObject([
    {
      prompt: "old",
      watcherName: "Test",
      watcherVersion: 1,
      agentKind: "claude-code",
      notification: "always",
      timeoutMs: 5_000,
      extractionSchema: { type: "object" },
      agentVersion: 1,
      agentName: "Pinion",
      agentSettings: { identity: expect.stringContaining("default agent") },
    },
  ]);
});

test("R4: an assignment carries the watcher's latest result", async () => {
  const { db } = database;
  const { device, epoch, watcher, run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run, { output: "yesterday" })], policy);
  await triggerRun(db, watcher);
  expect((await claim(db, device, epoch))[0]?.priorWindow).toMatchObject({
    run_id: run.runId,
    output: "yesterday",
    model_used: "device-cli",
    kind: "device_cli_output",
  });
});

test("R4: an accept with another's device or token starts nothing, not even beside the right one", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const other = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await triggerRun(db, await seedWatcher(db, device));
  const [run] = await claim(db, device, epoch);
  const acceptance = { ...run!, pushedAgoMs: 0, acceptedAgoMs: 0 };
  const wrong = [
    { ...acceptance, deviceId: other.deviceId },
    { ...acceptance, attemptToken: crypto.randomUUID() },
  ];
  expect(await attempts.accept(db, wrong)).toEqual(["gone", "gone"]);
  expect((await findRun(db, run!)).status).toBe("claimed");
  expect(await attempts.accept(db, [wrong[0]!, acceptance, wrong[1]!, acceptance])).toEqual([
    "gone",
    "running",
    "gone",
    "running",
  ]);
  expect((await findRun(db, run!)).status).toBe("running");
});
