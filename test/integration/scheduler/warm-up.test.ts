/** The statements of a run are planned before the first run, and leave no row. */
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { trigger } from "../../../src/scheduler/starts/triggers.ts";
import { warmUp, warmUpTriggers } from "../../../src/scheduler/warm-up.ts";
import { openDatabase } from "../../../src/store/pg/database.ts";
import { withinOrg } from "../../../src/store/pg/tenancy.ts";
import { useDatabase } from "../../support/database.ts";
import { seedDevice, seedWatcher } from "../../support/rows.ts";
import { noteDoorbell, policy } from "../../support/surroundings.ts";

const database = useDatabase();

test("a warm start has the plans of a run's statements, and has written nothing", async () => {
  const one = openDatabase({ url: database.url, poolMax: 1, applicationName: "pinion test" });
  onTestFinished(() => one.close());
  const { db } = one;
  const planned = async () => {
    const { rows } = await sql<{ count: number }>`select count(*) from pg_prepared_statements`.execute(db);
    return rows[0]!.count;
  };
  const written = () =>
    sql`select (select count(*) from run_all) as runs, (select count(*) from event_row) as events,
      (select count(*) from slot) as slots, (select count(*) from run_start) as starts`.execute(db);
  const [plansBefore, before] = [await planned(), (await written()).rows];
  await warmUp(db, policy);
  expect((await written()).rows).toEqual(before);
  expect((await planned()) - plansBefore).toBeGreaterThan(10);
});

test("a trigger has its plans before the first one on each kept connection, and nothing was written", async () => {
  const watcher = await seedWatcher(database.db, await seedDevice(database.db));
  const events = () => database.db.selectFrom("event").select("seq").execute();
  const before = await events();
  const two = openDatabase({ url: database.url, poolMax: 4, kept: 2, applicationName: "pinion test" });
  const one = openDatabase({ url: database.url, poolMax: 1, kept: 1, applicationName: "pinion test" });
  onTestFinished(() => Promise.all([one.close(), two.close()]).then(() => undefined));
  await warmUpTriggers(two.tenantDb, 2);
  expect(two.stats()).toMatchObject({ open: 2, idle: 2 });
  await warmUpTriggers(one.tenantDb, 1);
  expect(await events()).toEqual(before);

  const planned = async () => {
    const { rows } = await sql<{ statement: string }>`
      select statement from pg_prepared_statements where statement not like '%pg_prepared%'`.execute(one.db);
    return rows.map(({ statement }) => statement);
  };
  const warm = await planned();
  const request = { orgId: watcher.orgId, actor: "user:ann", rpc: "T/Trigger", requestId: "r" };
  await withinOrg(watcher.orgId, () =>
    trigger(one.tenantDb, { ...watcher, actor: "user:ann" }, { doorbell: noteDoorbell(), request }),
  );
  const added = (await planned()).filter((statement) => !warm.includes(statement));
  // Its org has to exist.
  expect(added).toEqual([expect.stringContaining("insert into request")]);
});
