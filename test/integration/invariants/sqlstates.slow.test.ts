/**
 * Every statement of failures, replies, claims, heartbeats, reaps and due slots, failing with every
 * class of SQLSTATE: nothing is given up, and no watcher is paused (R9, R10).
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createEndings } from "../../../src/scheduler/endings/endings.ts";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { runEndings } from "../../../src/scheduler/endings/run-endings.ts";
import { turnEndings } from "../../../src/scheduler/endings/turn-endings.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import { restore } from "../../../src/store/work/runs/restorations.ts";
import * as runClaims from "../../../src/store/work/runs/run-claims.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import type { WatcherName } from "../../../src/store/work/watchers/schedules.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import {
  ageRun,
  currentSession,
  findRun,
  findWatcher,
  hourly,
  listRuns,
  openDevice,
  putSchedule,
  reapRules,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
  sessionOf,
  triggerRun,
} from "../../support/rows.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";
import { replyOf, seedTurn, seedWorker } from "../../support/turns.ts";
import { codes, failEverywhere, faulty, fewCodes, nothing, reportAll } from "./failing-statements.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

test("no error in a statement of failures and late results gives them up", { timeout: 120_000 }, async () => {
  const { db, proxy } = await faulty(database.url);
  const endings = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), { db, log });
  await failEverywhere(proxy, async () => {
    const failing = await seedRunning(database.db);
    const late = await seedRunning(database.db);
    await ageRun(database.db, late.run, { claimed_at: 9e6, last_beat_at: 9e6 });
    await reapOnce(database.db, { rules: reapRules, policy, log });
    expect((await findRun(database.db, late.run)).status).toBe("timeout");
    const reports = [reportOf(failing.run, { status: "failed", reason: "no" }), reportOf(late.run)];
    return {
      async run() {
        await reportAll(endings, reports);
        expect(await findRun(database.db, failing.run)).toMatchObject({ status: "failed", reason: "no" });
        expect((await findRun(database.db, late.run)).status).toBe("completed");
      },
      async unharmed() {
        expect((await findRun(database.db, failing.run)).status).toMatch(/running|failed/);
        expect((await findRun(database.db, late.run)).status).toMatch(/timeout|completed/);
      },
    };
  });
});

test("no error in a statement of replies and late replies gives them up", { timeout: 120_000 }, async () => {
  const { db, proxy } = await faulty(database.url);
  const endings = createEndings(turnEndings({ doorbell: noteDoorbell() }), { db, log });
  const answerOf = (turn: Awaited<ReturnType<typeof seedTurn>>) => {
    const { turnId: workId, holderId: deviceId } = replyOf(turn);
    const { orgId, attemptToken } = turn;
    return reportOf({ orgId, deviceId, runId: workId, attemptToken }, { output: "hi" });
  };
  await failEverywhere(proxy, async () => {
    const worker = await seedWorker(database.db);
    const turn = await seedTurn(database.db, worker, { conversationId: `c-${worker.deviceId}` });
    const lost = await seedTurn(database.db, worker, { conversationId: `d-${worker.deviceId}` });
    await createEndings(turnEndings({ doorbell: noteDoorbell() }), { db: database.db, log }).settle({
      ...{ orgId: lost.orgId, workId: lost.turnId, attemptToken: lost.attemptToken, deviceId: null },
      ...{ action: "finish", status: "timeout", reason: "its worker is gone" },
    });
    return {
      async run() {
        expect(await reportAll(endings, [answerOf(turn), answerOf(lost)])).not.toContain("unknown");
      },
      unharmed: nothing,
    };
  });
});

test("claims, heartbeats, restored runs, reaps and due slots survive an error in each statement", {
  timeout: 180_000,
}, async () => {
  const { db, proxy } = await faulty(database.url);
  const { schedule, slot } = hourly();
  await failEverywhere(
    proxy,
    async () => {
      const device = await seedDevice(database.db);
      const { epoch } = await openDevice(database.db, device);
      const watcher = await seedWatcher(database.db, device);
      const run = await triggerRun(database.db, watcher);
      return {
        async run() {
          await runClaims.claim(db, [{ ...sessionOf(device, epoch), slots: 1, kinds: null }]);
          expect((await findRun(database.db, { orgId: run.orgId, runId: run.id })).status).toBe("claimed");
        },
        unharmed: nothing,
      };
    },
    fewCodes,
  );
  await failEverywhere(
    proxy,
    async () => {
      const { device, run } = await seedRunning(database.db);
      const session = await currentSession(database.db, device);
      return {
        async run() {
          expect(await presence.beat(db, [session])).toEqual([]);
        },
        unharmed: async () => expect((await findRun(database.db, run)).status).toBe("running"),
      };
    },
    fewCodes,
  );
  await failEverywhere(
    proxy,
    async () => {
      const { device, run, watcher } = await seedRunning(database.db);
      for (const table of ["run", "run_start"])
        await sql`delete from ${sql.table(table)} where watcher_id = ${watcher.watcherId}`.execute(
          database.db,
        );
      const now = new Date();
      const forgotten = {
        ...{
          ...device,
          runId: run.runId,
          attemptToken: run.attemptToken,
          attempt: 1,
          watcherId: watcher.watcherId,
        },
        ...{
          source: "manual" as const,
          scheduledFor: null,
          windowStart: new Date(now.getTime() - 1_000),
          windowEnd: now,
        },
      };
      return {
        async run() {
          expect(await transaction(db, (tx) => restore(tx, forgotten))).toBe(run.runId);
        },
        unharmed: nothing,
      };
    },
    fewCodes,
  );
  await failEverywhere(
    proxy,
    async () => {
      const watchers: WatcherName[] = [];
      for (let index = 0; index < 2; index++) {
        const watcher = await seedWatcher(database.db, await seedDevice(database.db), { schedule });
        await putSchedule(database.db, watcher, slot(0));
        watchers.push(watcher);
      }
      return {
        async run() {
          await materializeOnce(db, { doorbell: noteDoorbell(), log });
          for (const watcher of watchers) expect(await listRuns(database.db, watcher)).toHaveLength(1);
        },
        async unharmed() {
          for (const watcher of watchers)
            expect(await findWatcher(database.db, watcher)).toMatchObject({ status: "active" });
        },
      };
    },
    fewCodes,
  );
});

/** The statement that writes a watcher's slots. */
const recordsSlots = /insert into run /;

test("R9: a lone watcher is paused by a refusal of its own rows alone, at whatever statement and class", {
  timeout: 120_000,
}, async () => {
  const { db, proxy } = await faulty(database.url);
  const { schedule, slot } = hourly();
  const due = async () => {
    const watcher = await seedWatcher(database.db, await seedDevice(database.db), { schedule });
    await putSchedule(database.db, watcher, slot(0));
    return watcher;
  };
  const pass = () => materializeOnce(db, { doorbell: noteDoorbell(), log });
  proxy.take();
  await due();
  await pass();
  for (const [at, text] of proxy.take().entries()) {
    for (const code of codes) {
      const watcher = await due();
      proxy.fail(at, code, { isLasting: true });
      await pass().catch(() => {});
      const refused = proxy.mend();
      const isOwn = /^2[23]/.test(code) && recordsSlots.test(refused);
      const { status } = await findWatcher(database.db, watcher);
      expect(status, `${code} at ${text.slice(0, 60)}`).toBe(isOwn ? "paused" : "active");
      if (isOwn) continue;
      await pass();
      expect(await listRuns(database.db, watcher)).toHaveLength(1);
    }
  }
});
