/**
 * Statements around a finished program's result, failing with every class of SQLSTATE: the result
 * stays at its device until it is stored, and no watcher is paused (R9, R10). The statements of
 * failures, replies, claims and due slots fail in sqlstates.slow.test.ts.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { createEndings, type Report } from "../../../src/scheduler/endings/endings.ts";
import { runEndings } from "../../../src/scheduler/endings/run-endings.ts";
import { materializeOnce } from "../../../src/scheduler/slots/materializer.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import {
  findRun,
  findWatcher,
  hourly,
  listRuns,
  listWindows,
  putSchedule,
  reportOf,
  seedDevice,
  seedRunning,
  seedWatcher,
} from "../../support/rows.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";
import { failEverywhere, faulty, reportAll } from "./failing-statements.ts";

const database = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

test("no error in a statement of completions gives a result up, whatever its class", {
  timeout: 120_000,
}, async () => {
  const { db, proxy } = await faulty(database.url);
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
  const { db, proxy } = await faulty(database.url);
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
