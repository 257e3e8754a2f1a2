/**
 * The look for a failover costs an idle replica next to nothing, and misses no new connection.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { watchIncarnation } from "../../../src/replica/storage.ts";
import { openDatabase } from "../../../src/store/pg/database.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";

const t = useDatabase();
const log = createLogger({ name: "test", level: "silent" });

/** Moves the database's log on, so that a look shows in the position. */
const write = () => sql`select pg_logical_emit_message(false, 'test', 'moved', true)`.execute(t.db);

async function watched(isPooled: boolean) {
  const database = openDatabase({ url: t.url, poolMax: 2 });
  const incarnation = watchIncarnation(database, { log, isPooled });
  await incarnation.look();
  // The look has opened a connection of its own.
  await incarnation.lookIfNews(60_000);
  return {
    database,
    incarnation,
    /** Whether a pass looks: the database answers a statement during the pass. */
    async looks(idleMsMax: number): Promise<boolean> {
      const startedAt = performance.now();
      await incarnation.lookIfNews(idleMsMax);
      return database.answeredAgoMs() < performance.now() - startedAt;
    },
  };
}

test("without a sign of news a pass looks at nothing; a new connection or its age makes it look", async () => {
  const { database, looks } = await watched(false);
  expect(await looks(60_000)).toBe(false);
  expect(await looks(0)).toBe(true);
  expect(await looks(60_000)).toBe(false);
  await Promise.all(
    [sql`select pg_sleep(0.05)`, sql`select pg_sleep(0.05)`].map((q) => q.execute(database.db)),
  );
  expect(await looks(60_000)).toBe(true);
  expect(await looks(60_000)).toBe(false);
  await database.close();
});

test("a position that was told to a device is followed by a later one", async () => {
  const { database, incarnation } = await watched(false);
  const told = incarnation.current()!.position;
  await write();
  await incarnation.lookIfNews(60_000);
  expect(incarnation.current()!.position).not.toBe(told);
  await database.close();
});

test("through a pooler every pass looks", async () => {
  const { database, looks } = await watched(true);
  expect(await looks(60_000)).toBe(true);
  expect(await looks(60_000)).toBe(true);
  await database.close();
});
