/** Pages of a big org's lists read about a page of rows, beside many small orgs. */
import { type RawBuilder, sql } from "kysely";
import { beforeAll, expect, test } from "vitest";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import { withinOrg } from "../../../src/store/pg/tenancy.ts";
import { gather } from "../../../src/store/work/messages/delivery-facts.ts";
import * as bulks from "../../../src/store/work/runs/bulks.ts";
import * as runs from "../../../src/store/work/runs/runs.ts";
import * as searches from "../../../src/store/work/runs/searches.ts";
import * as windows from "../../../src/store/work/runs/windows.ts";
import * as events from "../../../src/store/work/service/events.ts";
import { tend } from "../../../src/store/work/service/partitions.ts";
import * as turns from "../../../src/store/work/turns/turns.ts";
import { useDatabase } from "../../support/database.ts";
import { pagesRead, rowsRead } from "../../support/reads.ts";
import { orgId, reportOf, seedRunning } from "../../support/rows.ts";
import { policy, storeOnce } from "../../support/surroundings.ts";
import { vacuumWhole } from "../../support/vacuum.ts";

const database = useDatabase({ per: "file" });

const ended = 20_000;
const smallOrgs = 500;
/** Rows that a page may read: the page in each partition, and some. */
const pageRowsMax = 3_000;
/** The time of the first run; each is a minute after the one before. */
const begin = "timestamptz '2026-01-01 00:00:00Z'";

beforeAll(async () => {
  const { db } = database;
  await transaction(db, (tx) => tend(tx, 30));
  const { run } = await seedRunning(db);
  await storeOnce(db, [reportOf(run, { status: "completed" })], policy);
  await sql`insert into org (id, name) select 'small-' || i, 'Small' from generate_series(1, ${smallOrgs}) i`.execute(
    db,
  );
  const seeded = (orgs: RawBuilder<unknown>, count: number) => sql`
    insert into run_finished (org_id, id, status, output, window_start, window_end, due_at, skip_reason, ${rest(restOfRuns)})
    select ${orgs}, id, case when i % 4 = 0 then 'failed' else 'completed' end, case when i % 4 > 0 then 'nothing' end,
      at - interval '1 minute', at, at, null, ${rest(restOfRuns)}
    from generate_series(1, ${count}::int) i cross join lateral (select ${sql.raw(begin)} + i * interval '1 minute' as at) t
      cross join lateral (select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7000a000'
        || lpad(to_hex(i), 12, '0'))::uuid as id) n
      cross join (select ${rest(restOfRuns)} from run_finished where org_id = ${orgId} limit 1) r`;
  await seeded(sql`${orgId}`, ended).execute(db);
  await seeded(sql`'small-' || i`, smallOrgs).execute(db);
  await sql`insert into event_row (org_id, kind, actor)
    select case when i % 8 = 0 then 'small-' || (1 + i % ${smallOrgs}) else ${orgId} end, 'run.completed', 'pinion'
    from generate_series(1, ${ended}::int) i`.execute(db);
  // As many turns, of which few failed.
  await sql`insert into turn_finished (org_id, id, agent_id, agent_version, conversation_id, message_id, agent_kind, input, is_gated,
      timeout_ms, created_at, start_deadline_at, status, attempt, reason, finished_at, is_retryable, is_reported, reply,
      is_reply_truncated, signal, duration_ms)
    select ${orgId}, uuid_v7(), 'bench', 1, 'c', 'm' || i, 'test', 'hello', true, 600000, now(), now(),
      case when i % 20 = 0 then 'failed' else 'completed' end, 1, '', now(), false, true, 'hello', false, '', 3000
    from generate_series(1, ${ended}::int) i`.execute(db);
  await sql`
    insert into run_report (org_id, run_id, finished_at, attempt_token, attention)
    select org_id, id, finished_at, gen_random_uuid(), '{permission_denied}' from run_finished
    where org_id = ${orgId} and status = 'failed'`.execute(db);
  await sql`vacuum analyze run_finished, turn_finished, event_row, org, device`.execute(db);
  await vacuumWhole(db, "run_report");
});

const restOfRuns = `watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source, created_at,
  timeout_ms, max_attempts, attempt, reason, past_attempts, finished_at`;
const rest = (columns: string) => sql.raw(columns);

/** The rows of ended runs, of turns and of events that a statement of the org's people reads. */
const readByOrg = (list: (tx: Db) => Promise<unknown>, db: Db = database.database.tenantDb) =>
  withinOrg(orgId, () => rowsRead({ db, tables: "^(run_finished|event_row|turn_finished)" }, list));

const limit = 51;
const statuses: string[] = [];
const moment = (minutes: number) => new Date(Date.parse("2026-01-01T00:00:00Z") + minutes * 60_000);
const idOf = (minutes: number) => {
  const digits = moment(minutes).getTime().toString(16).padStart(12, "0");
  return `${digits.slice(0, 8)}-${digits.slice(8)}-7000-a000-000000000000`;
};

test.each<[string, (tx: Db) => Promise<unknown[]>]>([
  ["the newest runs", (tx) => runs.list(tx, { orgId, limit, statuses })],
  ["a page in the middle", (tx) => runs.list(tx, { orgId, limit, statuses, beforeId: idOf(ended / 2) })],
  ["failed runs", (tx) => runs.list(tx, { orgId, limit, statuses: ["failed"] })],
  ["runs until long ago", (tx) => runs.list(tx, { orgId, limit, statuses, until: moment(1_000) })],
  ["turns that ended otherwise", (tx) => turns.list(tx, { orgId, limit, statuses: ["cancelled"] })],
  [
    "results that are searched",
    (tx) => searches.results(tx, { orgId, query: "zebra" }).then(({ hits }) => hits),
  ],
  ["results of a run", (tx) => windows.list(tx, { orgId, limit, runId: idOf(7) })],
  ["events before an old one", (tx) => events.list(tx, { orgId, limit, beforeSeq: 5_000 })],
  [
    "what a bulk operation of one hour matches",
    (tx) => bulks.count(tx, orgId, { statuses: ["failed"], until: moment(60).toISOString() }),
  ],
])("%s", async (_name, list) => {
  expect(await readByOrg(list)).toBeLessThan(pageRowsMax);
});

test("failed turns are read in the order of their index, and no further than the page", async () => {
  const list = (tx: Db) => turns.list(tx, { orgId, limit, statuses: ["failed"] });
  expect(await list(database.db)).toHaveLength(limit);
  expect(await readByOrg(list)).toBeLessThan(5 * limit);
});

test("which reasons for attention a run has is read from the index, without the reports", async () => {
  const list = (reason: string) => (tx: Db) => runs.list(tx, { orgId, limit, statuses, attention: [reason] });
  expect(await list("permission_denied")(database.db)).toHaveLength(limit);
  expect(await list("question_expired")(database.db)).toHaveLength(0);
  const reports = { orgId, tables: "^run_report" };
  expect(await pagesRead(database.database, reports, list("question_expired"))).toBeLessThan(5);
});

test("runs on devices with a label are found by their devices", async () => {
  const list = (label: string) => (tx: Db) => runs.list(tx, { orgId, limit, statuses, labels: [label] });
  expect(await readByOrg(list("none:such"))).toBeLessThan(pageRowsMax);
  await sql`update device set labels = '{site:1}' where org_id = ${orgId}`.execute(database.db);
  expect(await readByOrg(list("site:1"))).toBeLessThan(pageRowsMax);
  const found = await runs.list(database.db, { orgId, limit, statuses, labels: ["site:1"] });
  expect(found.map(({ id }) => id)).toEqual(
    (await runs.list(database.db, { orgId, limit, statuses })).map(({ id }) => id),
  );
});

test("the facts of a delivery are looked up", async () => {
  const { rows } = await sql<{
    id: string;
  }>`select id from run_finished where org_id = ${orgId} limit 1`.execute(database.db);
  const claimed = { orgId, id: rows[0]!.id, watcherId: null, runId: rows[0]!.id, subject: {} };
  expect(await readByOrg((tx) => gather(tx, [claimed as never]), database.db)).toBeLessThan(pageRowsMax);
});
