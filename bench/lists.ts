/**
 * The cost of the lists on the web page, in milliseconds: pages of 500 of 5,000 devices with their
 * last runs, and of 1,000 watchers with their recent runs and next slots, over a million ended runs
 * in partitions of 30 days. The reference is the same page without last runs and slots. `npx node
 * bench/lists.ts`
 */
import { randomUUID } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { nextSlot } from "../src/scheduler/schedule/schedule.ts";
import * as devices from "../src/store/people/devices/devices.ts";
import { type Db, openDatabase } from "../src/store/pg/database.ts";
import { startEmbedded } from "../src/store/pg/embedded/cluster.ts";
import { migrate } from "../src/store/pg/migrate.ts";
import { withinOrg } from "../src/store/pg/tenancy.ts";
import * as runSummaries from "../src/store/work/runs/run-summaries.ts";
import * as watchers from "../src/store/work/watchers/watchers.ts";

const watchersCount = 1_000;
const runsPerWatcher = 1_000;
const devicesCount = 5_000;
const days = 30;
/** Small enough for the statement timeout. */
const runsPerStatement = 25;
const pageSize = 500;
const rounds = 7;
const orgId = "acme";

const dataDir = await mkdtemp(join(tmpdir(), "pinion-bench-"));
// As root, PostgreSQL runs as another user, who needs to traverse the directory.
await chmod(dataDir, 0o711);
const embedded = await startEmbedded({ dataDir });
try {
  await migrate(embedded.url);
  const database = openDatabase({ url: embedded.url, poolMax: 4 });
  try {
    await seed(database.db);
    await withinOrg(orgId, () => measure(database.tenantDb));
    if (process.argv.includes("--explain")) await explain(database.db);
  } finally {
    await database.close();
  }
} finally {
  await embedded.stop();
  await rm(dataDir, { recursive: true, force: true });
}

/** Every tenth device ended nothing within the last two days, and every hundredth nothing ever. */
async function seed(db: Db): Promise<void> {
  await sql`insert into org (id, name) values (${orgId}, 'Acme')`.execute(db);
  await sql`insert into device (org_id, install_id, os, label)
    select ${orgId}, gen_random_uuid()::text, 'linux', 'device ' || n from generate_series(1, ${devicesCount}) n`.execute(
    db,
  );
  await sql`insert into presence (org_id, device_id, epoch, replica_id, connected_at, last_beat_at)
    select org_id, id, 1, ${randomUUID()}, now(), now() from device`.execute(db);
  await sql`insert into watcher (org_id, slug, name, agent_id, schedule)
    select ${orgId}, 'watcher-' || n, 'Watcher', 'pinion-default', '*/43 * * * *'
    from generate_series(1, ${watchersCount}) n`.execute(db);
  await sql`insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at)
    select org_id, id, now(), now() from watcher`.execute(db);
  await sql`insert into watcher_revision (org_id, watcher_id, version, name, prompt)
    select org_id, id, 1, name, 'look' from watcher`.execute(db);
  for (let day = days; day >= -1; day--) {
    const name = `run_finished_bench_${day + 1}`;
    const start = new Date(Math.floor(Date.now() / 86_400_000 - day) * 86_400_000);
    const end = new Date(start.getTime() + 86_400_000);
    await sql`create table ${sql.ref(name)} partition of run_finished
      for values from (${sql.lit(start.toISOString())}) to (${sql.lit(end.toISOString())})`.execute(db);
  }
  for (let first = 1; first <= runsPerWatcher; first += runsPerStatement) {
    await sql`
      insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
        notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt,
        reason, past_attempts, finished_at, started_at, duration_ms)
      select ${orgId},
        (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text || w.id), 1, 19))::uuid,
        w.id, 1, 'pinion-default', 1, d.ids[k], 'test', 'none', 'scheduled', at - interval '1 hour', at, at, at, 3600000, 1,
        case when n % 17 = 0 then 'failed' else 'completed' end, 1, '', '[]', at + interval '20 s', at, 20000
      from generate_series(${first}::int, ${first + runsPerStatement - 1}::int) n, lateral (
          select id, row_number() over (order by id) as number from watcher where org_id = ${orgId}) w,
        (select array_agg(id order by id) as ids from device) d,
        lateral (select now() - n * interval '43 min' - w.number * interval '1 s' as at) a,
        lateral (select (1 + (w.number * 7919 + n * 104729) % ${devicesCount})::int as k) c
      where k % 100 <> 0 and (k % 10 <> 0 or at < now() - interval '2 days')`.execute(db);
  }
  const { rows: tables } = await sql<{ name: string }>`
    select relname as name from pg_class where relname ~ '^(run_finished_|device$|watcher$|presence$)' and relkind = 'r'`.execute(
    db,
  );
  for (const { name } of tables) await sql`vacuum analyze ${sql.table(name)}`.execute(db);
}

async function measure(db: Db): Promise<void> {
  console.log(`${cpus()[0]!.model}, ${cpus().length} cores; Node ${process.version}; medians of ${rounds}`);
  const ttlMs = 60_000;
  const page = await devices.list(db, { orgId, ttlMs, limit: pageSize });
  const deviceIds = page.map((device) => device.id);
  const listed = await watchers.list(db, { orgId, limit: pageSize });
  const watcherIds = listed.map((watcher) => watcher.id);
  await report("500 devices", () => devices.list(db, { orgId, ttlMs, limit: pageSize }));
  await report("  and their last runs", () => runSummaries.lastOfDevices(db, { orgId, deviceIds }));
  await report("500 watchers", () => watchers.list(db, { orgId, limit: pageSize }));
  await report("  and their 30 recent runs", () =>
    runSummaries.recentOfWatchers(db, { orgId, watcherIds, limit: 30 }),
  );
  await report("  and their 3 next slots", async () => {
    for (const watcher of listed) {
      let slot = watcher.next_slot_at!;
      for (let i = 0; i < 2; i++)
        slot = nextSlot(
          { schedule: watcher.schedule!, timeZone: watcher.time_zone, watcherId: watcher.id },
          slot,
        )!;
    }
  });
}

async function report(what: string, work: () => Promise<unknown>): Promise<void> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const startedAt = performance.now();
    await work();
    times.push(performance.now() - startedAt);
  }
  times.sort((a, b) => a - b);
  console.log(`${what.padEnd(30)} ${times[Math.floor(rounds / 2)]!.toFixed(1)} ms`);
}

async function explain(db: Db): Promise<void> {
  const { rows } = await sql<{ "QUERY PLAN": string }>`explain (analyze, buffers)
    select l.* from (select id from watcher order by slug limit 500) w cross join lateral (
      select id, watcher_id, status, due_at from run_finished
      where org_id = ${orgId} and watcher_id = w.id order by id desc limit 30) l`.execute(db);
  for (const row of rows.slice(0, 12).concat(rows.slice(-8))) console.log(row["QUERY PLAN"]);
}
