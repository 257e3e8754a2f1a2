/** The statements of a run are planned before the first run, and leave no row. */
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { warmUp } from "../../../src/scheduler/warm-up.ts";
import { openDatabase } from "../../../src/store/pg/database.ts";
import { useDatabase } from "../../support/database.ts";
import { policy } from "../../support/surroundings.ts";

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
