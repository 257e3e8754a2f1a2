/** A database and a role with other defaults than PostgreSQL's, directly and through PgBouncer. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { checkDatabase } from "../../../../src/cli/doctor/database.ts";
import { openDatabase } from "../../../../src/store/pg/database.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { missingPgBouncer, startPgBouncer } from "../../../support/pgbouncer.ts";
import { startTestReplica } from "../../../support/server.ts";

const database = useDatabase();

const odd = {
  datestyle: "'SQL, DMY'",
  intervalstyle: "'iso_8601'",
  timezone: "'Pacific/Chatham'",
  extra_float_digits: "-15",
  standard_conforming_strings: "off",
  bytea_output: "'escape'",
  search_path: "elsewhere",
  default_transaction_isolation: "'serializable'",
  row_security: "off",
  array_nulls: "off",
  transform_null_equals: "on",
  lock_timeout: "'1ms'",
};

const names = Object.keys(odd) as (keyof typeof odd)[];

async function makeOdd(whose: "database" | "role"): Promise<void> {
  const { rows } = await sql<{ name: string }>`select current_database() as name`.execute(database.db);
  const target = `database "${rows[0]!.name}"`;
  for (const name of names) {
    const owner = whose === "database" ? target : `role current_user in ${target}`;
    await sql.raw(`alter ${owner} set ${name} = ${odd[name]}`).execute(database.db);
  }
}

/**
 * Creates, triggers, runs and completes a watcher with a schedule; every step reads the writes of
 * an earlier step.
 */
async function mainJob(settings: Record<string, string> = {}): Promise<void> {
  const { clients, url } = await startTestReplica(database.url, settings);
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const { watcher } = await clients.watchers.createWatcher({
    spec: {
      name: "Odd",
      prompt: "say it\\n'",
      schedule: "0 9 13 * *",
      timeZone: "Europe/Berlin",
      deviceId: device.deviceId,
    },
  });
  const before = await clients.watchers.getWatcher({ watcherId: watcher!.id });
  expect(new Date(Number(before.watcher!.nextSlotAt!.seconds) * 1_000).getUTCDate()).toBe(13);
  await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  const assignment = await stream.next("assignment");
  expect(assignment.watcher).toMatchObject({ id: watcher!.id, prompt: "say it\\n'" });
  stream.accept(assignment);
  await stream.complete(assignment, "it");
  const { run } = await clients.runs.getRun({ runId: assignment.workId });
  expect(run!.status).toBe(RunStatus.COMPLETED);
  const ageMs = Date.now() - Number(run!.finishedAt!.seconds) * 1_000;
  expect(Math.abs(ageMs)).toBeLessThan(60_000);
}

test("the main job is done in a database whose every default is odd", async () => {
  await makeOdd("database");
  const fresh = openDatabase({ url: database.url, poolMax: 2 });
  const { rows } = await sql<{
    name: string;
    setting: string;
  }>`select lower(name) as name, setting from pg_settings
    where lower(name) = any(${names}::text[])`.execute(fresh.db);
  await fresh.close();
  expect(Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))).toMatchObject({
    ...{ datestyle: "ISO, MDY", intervalstyle: "postgres", timezone: "UTC", extra_float_digits: "1" },
    ...{ standard_conforming_strings: "on", bytea_output: "hex", search_path: "public", row_security: "on" },
    ...{ default_transaction_isolation: "read committed", array_nulls: "on", lock_timeout: "0" },
  });
  await mainJob();
  const checks = await checkDatabase(database.url);
  const defaults = checks.find(({ name }) => name === "defaults");
  expect(defaults).toMatchObject({
    verdict: "doubtful",
    found: expect.stringContaining("DateStyle=SQL, DMY"),
  });
  expect(defaults!.advice).toContain("search_path");
});

test("what the role has set otherwise does not count either", async () => {
  await makeOdd("role");
  await mainJob();
});

test.skipIf(missingPgBouncer())("and through PgBouncer", async () => {
  await makeOdd("database");
  const pooler = await startPgBouncer(database.url);
  try {
    const pooled = openDatabase({ url: pooler.url, poolMax: 1, isPooled: true });
    // A single statement: the table is found, a NULL in an array stays NULL, timestamps are in ISO
    // format.
    const { rows } = await sql<{ orgs: boolean; holds_null: boolean; at: string; isolation: string }>`
      select exists (select from org) is not null as orgs, '{NULL}'::text[] = array[null]::text[] as holds_null,
        '2026-02-13 00:00:00+00'::timestamptz::text as at,
        current_setting('transaction_isolation') as isolation`.execute(pooled.db);
    await pooled.close();
    expect(rows).toEqual([
      { orgs: true, holds_null: true, at: "2026-02-13 00:00:00+00", isolation: "read committed" },
    ]);
    await mainJob({ DATABASE_URL: pooler.url, DATABASE_DIRECT_URL: database.url });
  } finally {
    await pooler.kill();
  }
});
