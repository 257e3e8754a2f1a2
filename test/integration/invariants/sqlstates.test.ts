/**
 * Every statement around a finished program's result, failing with every class of SQLSTATE: the
 * result stays at its device until it is stored, and no watcher is paused (R9, R10).
 */
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { codeOf, Refusal } from "../../../src/errors.ts";
import { createEndings, type Endings, type Report } from "../../../src/scheduler/endings/endings.ts";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { runEndings } from "../../../src/scheduler/endings/run-endings.ts";
import { turnEndings } from "../../../src/scheduler/endings/turn-endings.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { type Db, openDatabase, transaction } from "../../../src/store/pg/database.ts";
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
  listWindows,
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
import { type StatementProxy, startStatementProxy } from "../../support/statement-proxy.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";
import { replyOf, seedTurn, seedWorker } from "../../support/turns.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

/** A code of each class. */
const codes = [
  ...["08006", "0A000", "22001", "23505", "25006", "28000", "3D000", "3F000", "40001", "42P01"],
  ...["53100", "54000", "55P03", "57014", "58030", "P0001", "XX000"],
];
/** For work that has no data of a device. */
const fewCodes = ["08006", "23514", "40001", "53100", "57014", "XX000"];

async function faulty(): Promise<{ db: Db; proxy: StatementProxy }> {
  const proxy = await startStatementProxy(database.url);
  const opened = openDatabase({ url: proxy.url, poolMax: 2, applicationName: "pinion faulty test" });
  onTestFinished(() => opened.close());
  // The first statements of a connection are no part of the work.
  await sql`select 1`.execute(opened.db);
  return { db: opened.db, proxy };
}

type Work = {
  /** Does the work; the same work may be repeated. */
  run(): Promise<unknown>;
  /** After each failure: nothing has been given up. */
  unharmed(): Promise<void>;
};

/** The statements that take a report's data. */
const carriesData = /insert into (run_finished|run_report|late_result|turn_finished)/;

/**
 * Does the work with each of its statements failing, in each way, for as long as asked; and in the
 * end without a failure. Returns the statements.
 */
async function failEverywhere(
  proxy: StatementProxy,
  make: () => Promise<Work>,
  tried = codes,
): Promise<string[]> {
  const first = await make();
  proxy.take();
  await first.run();
  const statements = proxy.take();
  for (const [at, text] of statements.entries()) {
    if (text.startsWith("rollback")) continue;
    const work = await make();
    for (const code of tried) {
      proxy.fail(at, code, { isLasting: true });
      const error = await work.run().then(
        () => undefined,
        (failure: unknown) => failure,
      );
      const refused = proxy.mend();
      const where = `${code} at ${refused.slice(0, 60)}`;
      // Data that the database refuses in the statement that takes the data is invalid.
      const mayBeInvalid = /^2[23]/.test(code) && carriesData.test(refused);
      if (error instanceof Refusal) expect(mayBeInvalid, `${where}: refused for good`).toBe(true);
      else if (error !== undefined) expect(codeOf(error), where).toBe(code);
      await work.unharmed();
    }
    await work.run();
  }
  return statements;
}

const nothing = async () => {};

async function reportAll(endings: Endings, reports: readonly Report[]): Promise<string[]> {
  const results = await Promise.allSettled(reports.map((report) => endings.report(report)));
  const failed = results.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value.verdict] : []));
}

test("no error in a statement of completions gives a result up, whatever its class", {
  timeout: 120_000,
}, async () => {
  const { db, proxy } = await faulty();
  const endings = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), { db, log });
  const agent = {
    result: "42",
    structured: { a: 1 },
    attention: [],
    sessionId: "s",
    facts: {},
    usage: undefined,
    transcript: undefined,
  };
  await failEverywhere(proxy, async () => {
    const seeded = [await seedRunning(database.db), await seedRunning(database.db)];
    const [one, two] = seeded.map(({ run }) => reportOf(run)) as [Report, Report];
    const reports = [one, { ...two, agent }];
    return {
      async run() {
        expect(await reportAll(endings, reports)).not.toContain("unknown");
        for (const { run } of seeded) expect(await listWindows(database.db, run)).toHaveLength(1);
      },
      async unharmed() {
        for (const { run, watcher } of seeded) {
          expect((await findRun(database.db, run)).status).toMatch(/running|completed/);
          expect(await findWatcher(database.db, watcher)).toMatchObject({
            status: "active",
            consecutive_failures: 0,
          });
        }
      },
    };
  });
});

test("no error in a statement of failures and late results gives them up", { timeout: 120_000 }, async () => {
  const { db, proxy } = await faulty();
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
  const { db, proxy } = await faulty();
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
  const { db, proxy } = await faulty();
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
  const { db, proxy } = await faulty();
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

test.each(["23505", "22001"])("R9: an event refused with %s pauses no watcher", async (code) => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(0));
  const pass = () => materializeOnce(db, { doorbell: noteDoorbell(), log });
  await refuseRows("event_row", code, "new.kind = 'run.created'");
  await expect(pass()).rejects.toMatchObject({ code });
  expect(await findWatcher(db, watcher)).toMatchObject({ status: "active" });
  await mendRows("event_row");
  await pass();
  expect(await listRuns(db, watcher)).toHaveLength(1);
});

/** Refuses rows of a table with a code, while the condition is true. */
async function refuseRows(table: string, code: string, condition: string): Promise<void> {
  await sql`
    create function refuse_row() returns trigger language plpgsql as ${sql.lit(
      `begin if ${condition} then raise exception using errcode = '${code}', message = 'refused'; end if; return new; end`,
    )}`.execute(database.db);
  await sql`create trigger refuse_row before insert on ${sql.table(table)} for each row execute function refuse_row()`.execute(
    database.db,
  );
}

const mendRows = (table: string) => sql`drop trigger refuse_row on ${sql.table(table)}`.execute(database.db);

test.each(["22001", "23514"])(
  "a result whose own data is refused with %s is invalid, and alone",
  async (code) => {
    const { db } = database;
    const seeded = [await seedRunning(db), await seedRunning(db), await seedRunning(db)];
    await refuseRows("run_finished", code, "new.output like 'poison%'");
    const endings = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), { db, log });
    const results = await Promise.allSettled(
      seeded.map(({ run }, index) =>
        endings.report(reportOf(run, { output: index === 1 ? "poison" : "good" })),
      ),
    );
    expect(results).toMatchObject([
      { status: "fulfilled", value: { verdict: "stored" } },
      { status: "rejected", reason: { reason: "invalid_argument" } },
      { status: "fulfilled", value: { verdict: "stored" } },
    ]);
  },
);

test.each(["22001", "23505", "23514"])(
  "a refusal with %s of a row beside the results makes none of them invalid",
  async (code) => {
    const { db } = database;
    const seeded = [await seedRunning(db), await seedRunning(db)];
    await refuseRows("event_row", code, "new.kind = 'run.completed'");
    const endings = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), { db, log });
    const report = () => Promise.allSettled(seeded.map(({ run }) => endings.report(reportOf(run))));
    expect(await report()).toMatchObject([
      { status: "rejected", reason: { code } },
      { status: "rejected", reason: { code } },
    ]);
    await mendRows("event_row");
    expect(await report()).toMatchObject([
      { value: { verdict: "stored" } },
      { value: { verdict: "stored" } },
    ]);
  },
);

test("a statement that the database refuses once, because of another writer, is tried again", async () => {
  const { db, proxy } = await faulty();
  const endings = createEndings(runEndings({ policy, doorbell: noteDoorbell() }), { db, log });
  const { run } = await seedRunning(database.db);
  const statements = await (async () => {
    const other = await seedRunning(database.db);
    proxy.take();
    await endings.report(reportOf(other.run));
    return proxy.take();
  })();
  proxy.fail(statements.length - 2, "23505");
  expect(await endings.report(reportOf(run))).toMatchObject({ verdict: "stored" });
});
