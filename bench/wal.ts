/**
 * The writes of a run: bytes of WAL by statement and by table, of scheduled runs that are recorded
 * claimed and end at their device, in batches. `node bench/wal.ts [runs] [batch …]`. Counts bytes,
 * so other load on the machine does not matter.
 */

import { appendSettled } from "../src/scheduler/endings/run-endings.ts";
import { planDue } from "../src/scheduler/slots/plan.ts";
import { eventOf } from "../src/scheduler/slots/recording.ts";
import { type Db, openDatabase, transaction } from "../src/store/pg/database.ts";
import { type Completed, complete } from "../src/store/work/attempts/completions.ts";
import * as events from "../src/store/work/service/events.ts";
import * as presence from "../src/store/work/service/presence.ts";
import * as replicas from "../src/store/work/service/replicas.ts";
import * as schedules from "../src/store/work/watchers/schedules.ts";
import * as slotRows from "../src/store/work/watchers/slot-rows.ts";
import { newToken } from "../src/values/ids.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { makeDue, seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";

const [runs = 4_000, ...sizes] = process.argv.slice(2).map(Number);
const orgs = 10;
const replicaId = "replica-1";

const cluster = await openCluster({
  shared_preload_libraries: "pg_stat_statements",
  "pg_stat_statements.track_planning": "on",
  autovacuum: "off",
  // Full images of pages come with the first change after a checkpoint: within a single round,
  // their count is arbitrary.
  full_page_writes: "off",
});
try {
  for (const batch of sizes.length > 0 ? sizes : [500, 50, 1]) await measure(batch);
} finally {
  await cluster.close();
}

async function measure(batch: number): Promise<void> {
  const url = await cluster.database("wal");
  await query(url, "create extension pg_stat_statements");
  await query(url, "create extension pg_walinspect");
  await seedOrgs(url, orgs);
  await seedDevices(url, { count: runs, orgs, slots: 1, tokenOf: () => newToken("dev") });
  await seedWatchers(url, 1);
  const database = openDatabase({ url, poolMax: 1 });
  const { db } = database;
  await replicas.beat(db, { id: replicaId, address: "nowhere" });
  const { rows: devices } = await query(url, `select org_id as "orgId", id as "deviceId" from device`);
  const seats = new Map<string, presence.SessionName>();
  for (const device of devices as presence.SessionName[]) {
    const { epoch, sessionId } = await presence.open(db, { ...device, replicaId, ttlMs: 60_000 });
    seats.set(device.deviceId, { ...device, epoch, sessionId });
  }
  await makeDue(url, new Date(Date.now() - 60_000));
  // The first round fills indexes and free space, so that the second round shows the steady state.
  await round(db, seats, batch);
  await makeDue(url, new Date(Date.now() - 1_000));
  await query(url, "vacuum (analyze, freeze)");
  await query(url, "checkpoint");
  await query(url, "select pg_stat_statements_reset()");
  const before = await lsn(url);
  const cpuBefore = cpuSeconds(cluster.pid, { withChildren: true });
  const ownBefore = process.cpuUsage();
  await round(db, seats, batch);
  const own = process.cpuUsage(ownBefore);
  const postgres = cpuSeconds(cluster.pid, { withChildren: true }) - cpuBefore;
  const after = await lsn(url);
  await database.close();

  const { rows: total } = await query(url, "select pg_wal_lsn_diff($2, $1)::int as bytes", [before, after]);
  console.log(`\nbatches of ${batch}: ${perRun(total[0].bytes)} KiB of WAL a run`);
  console.log(
    `CPU seconds for 1,000 runs: PostgreSQL ${per1000(postgres)}, this process ${per1000((own.user + own.system) / 1e6)}`,
  );
  await printTables(url, { batch, before, after });
}

/** The statements and the tables that wrote most. */
async function printTables(
  url: string,
  { batch, before, after }: { batch: number; before: string; after: string },
): Promise<void> {
  const { rows: statements } = await query(
    url,
    `select round(wal_bytes / $1)::int as "bytes a run", round((total_plan_time / calls)::numeric, 2) as "plan ms", round((total_exec_time / calls)::numeric, 2) as "execute ms",
      calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 90) as statement
    from pg_stat_statements where calls >= $1 / $2 / 2 order by wal_bytes desc, 2 desc limit 16`,
    [runs, batch],
  );
  console.table(statements);
  const { rows: tables } = await query(
    url,
    `select coalesce(c.relname, '?') as relation, resource_manager || ' ' || record_type as record, count(*)::int,
      round(sum(record_length) / $3::numeric)::int as "bytes a run"
    from pg_get_wal_block_info($1, $2) b left join pg_class c on pg_relation_filenode(c.oid) = b.relfilenode
    where block_id = 0 group by 1, 2 having sum(record_length) > 2 * $3 order by 4 desc`,
    [before, after, runs],
  );
  console.table(tables);
}

async function lsn(url: string): Promise<string> {
  return (await query(url, "select pg_current_wal_insert_lsn() as at")).rows[0].at as string;
}

/** Records all due runs in batches, and completes each batch. */
async function round(db: Db, seats: ReadonlyMap<string, presence.SessionName>, size: number): Promise<void> {
  let done = 0;
  for (;;) {
    const recorded = await transaction(db, async (tx) => {
      const plans = (await schedules.lockDue(tx, size)).map((watcher) => ({
        ...planDue(watcher),
        watcher,
      }));
      const slots = plans.flatMap(({ slots, watcher }) =>
        slots.map((slot) => ({ ...slot, claimant: seats.get(watcher.deviceId!) })),
      );
      const moves = plans.map((plan) => plan.move);
      const written = await slotRows.record(tx, slots, moves);
      await events.appendAll(tx, written.map(eventOf));
      return written;
    });
    if (recorded.length === 0) break;
    done += recorded.length;
    const completions = recorded.filter(slotRows.isClaimed).map(
      (run): Completed => ({
        ...{ orgId: run.orgId, workId: run.runId, attemptToken: run.attemptToken, deviceId: run.deviceId },
        ...{ action: "finish_or_retry", status: "completed", reason: "", output: "done", exitCode: 0 },
        ...{ durationMs: 1, pushedAgoMs: 1, startedAgoMs: 1 },
      }),
    );
    await transaction(db, async (tx) => {
      const settled = await complete(tx, completions);
      await appendSettled(tx, completions, settled, { quotas: undefined });
    });
  }
  if (done !== runs) throw new Error(`${done} of ${runs} runs were made`);
}

function perRun(bytes: number): string {
  return (bytes / runs / 1_024).toFixed(2);
}

function per1000(seconds: number): string {
  return ((seconds / runs) * 1_000).toFixed(3);
}
