/**
 * The time of each statement in a run's life, for a single run: planned each time, and with kept
 * plans (docs/decisions/0007). `node bench/statements.ts`; milliseconds measured at the client.
 */

import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import { planDue } from "../src/scheduler/slots/plan.ts";
import { eventOf } from "../src/scheduler/slots/recording.ts";
import { type Db, transaction } from "../src/store/pg/database.ts";
import { named } from "../src/store/pg/prepared.ts";
import type { Schema } from "../src/store/pg/schema/schema.ts";
import * as attempts from "../src/store/work/attempts/attempts.ts";
import { settle } from "../src/store/work/attempts/settlements.ts";
import * as runClaims from "../src/store/work/runs/run-claims.ts";
import * as events from "../src/store/work/service/events.ts";
import * as presence from "../src/store/work/service/presence.ts";
import * as replicas from "../src/store/work/service/replicas.ts";
import * as schedules from "../src/store/work/watchers/schedules.ts";
import * as slotRows from "../src/store/work/watchers/slot-rows.ts";
import { newToken } from "../src/values/ids.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { percentiles } from "./lib/percentiles.ts";
import { shown } from "./lib/report.ts";
import { seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";

const runs = 300;
const replicaId = "replica-1";
const policy = { retryBackoffMs: 1_000, backoffAfter: 3, pauseAfter: 10, watcherBackoffMs: 1_000 };
/** By a text that occurs in only one statement. */
const statements: Record<string, RegExp> = {
  "lock what is due": /where s.next_due_at <= statement_timestamp/,
  "read what is locked": /"queuedSlotAt"/,
  "record the run": /insert into run \(/,
  "append an event": /pg_advisory_xact_lock/,
  "look ahead": /next_due_at - clock_timestamp/,
  "claim, with its commit": /with seated/,
  "accept, with its commit": /started as/,
  settle: /as was_pushed_at/,
  commit: /^commit/,
};

const cluster = await openCluster();
try {
  const url = await cluster.database("statements");
  await seedOrgs(url, 10);
  await seedDevices(url, { count: 1_000, orgs: 10, slots: 1, tokenOf: () => newToken("dev") });
  await seedWatchers(url, 3);
  const { rows: watchers } = await query(
    url,
    `select org_id as "orgId", id as "watcherId" from watcher limit ${runs}`,
  );
  console.log("p50 ms".padStart(44), "kept p50".padStart(10), "times".padStart(8));
  const planned = await measure(url, watchers as schedules.WatcherName[], false);
  const kept = await measure(url, watchers as schedules.WatcherName[], true);
  for (const [name, ms] of planned) {
    const keptMs = kept.get(name)!;
    console.log(
      name.padEnd(36),
      shown(ms).padStart(7),
      shown(keptMs).padStart(10),
      shown(ms / keptMs).padStart(8),
    );
  }
} finally {
  await cluster.close();
}
process.exit(0);

async function measure(
  url: string,
  watchers: readonly schedules.WatcherName[],
  isKept: boolean,
): Promise<Map<string, number>> {
  const took = new Map<string, number[]>();
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  // Without savingTrips: each statement is timed by itself.
  if (isKept) pool.on("connect", prepareKept);
  const db: Db = new Kysely<Schema>({
    dialect: new PostgresDialect({ pool }),
    log({ query, queryDurationMillis }) {
      const name = Object.entries(statements).find(([, text]) => text.test(query.sql))?.[0];
      if (name) took.set(name, [...(took.get(name) ?? []), queryDurationMillis]);
    },
  });
  await replicas.beat(db, { id: replicaId, address: "nowhere" });
  for (const watcher of watchers) {
    await query(
      url,
      "update schedule_position set next_due_at = now(), next_slot_at = now() where watcher_id = $1",
      [watcher.watcherId],
    );
    await liveOnce(db);
  }
  await db.destroy();
  return new Map([...took].map(([name, all]) => [name, percentiles(all).p50]));
}

function prepareKept(client: pg.PoolClient): void {
  const query = client.query.bind(client) as (...args: unknown[]) => unknown;
  const preparing = (text: string, values: unknown[]) => {
    const statement = named({ text, values });
    return statement.name ? query(statement) : query(text, values);
  };
  client.query = preparing as typeof client.query;
}

async function liveOnce(db: Db): Promise<void> {
  const [run] = await transaction(db, async (tx) => {
    const plans = (await schedules.lockDue(tx, 1_000)).map((watcher) => planDue(watcher));
    const slots = plans.flatMap((plan) => plan.slots);
    const recorded = await slotRows.record(
      tx,
      slots,
      plans.map((plan) => plan.move),
    );
    await events.appendAll(tx, recorded.map(eventOf));
    return recorded;
  });
  await schedules.lookAhead(db, 0);
  const device = { orgId: run!.orgId, deviceId: run!.deviceId! };
  const { epoch, sessionId } = await presence.open(db, { ...device, replicaId, ttlMs: 60_000 });
  const [claimed] = await runClaims.claim(db, [{ ...device, epoch, sessionId, slots: 1, kinds: null }]);
  await attempts.accept(db, [{ ...claimed!, workId: claimed!.runId, pushedAgoMs: 1, acceptedAgoMs: 1 }]);
  await transaction(db, async (tx) => {
    const [settled] = await settle(
      tx,
      [
        {
          ...claimed!,
          workId: claimed!.runId,
          action: "finish_or_retry",
          status: "completed",
          reason: "",
          output: "done",
        },
      ],
      policy,
    );
    await events.append(tx, device.orgId, [
      { kind: "run.completed", actor: "pinion", runId: settled!.runId },
    ]);
  });
}
