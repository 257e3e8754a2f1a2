/**
 * Old and new replicas on one database: the promises of docs/upgrades.md for the time between two
 * versions.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startTestReplica } from "../../support/server.ts";
import { startWork, takeOn, untilStatus } from "../../support/work.ts";

const database = useDatabase();

/** The first step of a newer version's migration: additions without removals. */
async function expand(): Promise<void> {
  for (const table of ["run", "watcher", "device", "presence", "token", "event_row"]) {
    await sql`alter table ${sql.table(table)} add column of_the_next_version text not null default 'x'`.execute(
      database.db,
    );
  }
  await sql`insert into kysely_migration (name, timestamp) values ('9999_expand', now()::text)`.execute(
    database.db,
  );
}

test("a replica that runs goes on with its work after a newer version has expanded the schema", async () => {
  const { clients, url } = await startTestReplica(database.url);
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const first = await startWork(clients, device);
  const held = await takeOn(stream);
  await expand();
  await stream.complete(held);
  await untilStatus(clients, { workId: first.id }, RunStatus.COMPLETED);
  const second = await startWork(clients, device);
  await stream.complete(await takeOn(stream));
  await untilStatus(clients, { workId: second.id }, RunStatus.COMPLETED);
  const newcomer = await enrolDevice(clients);
  await connect(url, newcomer);
});

test("an old replica does not start on a database of a newer version, says so, and changes nothing", async () => {
  await expand();
  const before = await sql`select name from kysely_migration order by name`.execute(database.db);
  await expect(startTestReplica(database.url)).rejects.toMatchObject({
    reason: "failed_precondition",
    message: expect.stringMatching(/9999_expand.*newer version/),
  });
  expect((await sql`select name from kysely_migration order by name`.execute(database.db)).rows).toEqual(
    before.rows,
  );
});
