/**
 * Moments of one attempt stand in their order: claimed, started, ended. A transaction that ends an
 * attempt may have begun before the attempt was claimed, or before its accept was written, and
 * `now()` is the beginning of the transaction.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import type { Db } from "../../../src/store/pg/database.ts";
import { complete } from "../../../src/store/work/attempts/completions.ts";
import { type Settlement, settle } from "../../../src/store/work/attempts/settlements.ts";
import { commitTerminalReply, withdraw } from "../../../src/store/work/turns/turn-settlements.ts";
import { useDatabase } from "../../support/database.ts";
import { hold } from "../../support/locks.ts";
import { reportOf, seedRunning } from "../../support/rows.ts";
import { policy } from "../../support/surroundings.ts";
import { replyOf, seedTurn, seedWorker } from "../../support/turns.ts";

const database = useDatabase({ per: "file" });

/** Runs `end` in a transaction that begins before the attempt's claim and its accept. */
async function endLate(work: { table: "run" | "turn"; id: string }, end: (tx: Db) => Promise<unknown>) {
  await using ending = await hold(database.db);
  await ending.sent();
  // Written by others meanwhile, within the same second.
  await sql`update ${sql.table(work.table)} set claimed_at = clock_timestamp(), started_at =
    case when status = 'running' then clock_timestamp() end where id = ${work.id}`.execute(database.db);
  await end(ending.tx);
  await ending.commit();
}

async function momentsOf(table: "run_finished" | "turn_finished", id: string) {
  const { rows } = await sql<{ isOrdered: boolean }>`
    select finished_at >= greatest(claimed_at, started_at) as "isOrdered"
    from ${sql.table(table)} where id = ${id}`.execute(database.db);
  return rows;
}

async function pastMomentsOf(table: "run" | "turn", id: string, claimedAt: string) {
  const { rows } = await sql<{ isOrdered: boolean }>`
    select (e->>'ended_at')::timestamptz >= ${claimedAt}::timestamptz as "isOrdered"
    from ${sql.table(table)}, jsonb_array_elements(past_attempts) e where id = ${id}`.execute(database.db);
  return rows;
}

async function claimOf(table: "run" | "turn", id: string): Promise<string> {
  const { rows } = await sql<{ at: string }>`
    select claimed_at::text as at from ${sql.table(table)} where id = ${id}`.execute(database.db);
  return rows[0]!.at;
}

const settling = (run: Parameters<typeof reportOf>[0], more: Partial<Settlement>): Settlement => ({
  ...reportOf(run),
  action: "finish",
  ...more,
});

test("a run ends after its claim and its start, whichever statement ends it", async () => {
  const ends: ((tx: Db, run: Parameters<typeof reportOf>[0]) => Promise<unknown>)[] = [
    (tx, run) => complete(tx, [{ ...reportOf(run), action: "finish_or_retry", status: "completed" }]),
    (tx, run) => settle(tx, [settling(run, {})], policy),
    (tx, run) => settle(tx, [settling(run, { status: "cancelled", deviceId: null })], policy),
  ];
  for (const [status, end] of ["running", "claimed"].flatMap((each) =>
    ends.map((one) => [each, one] as const),
  )) {
    const { run } = await seedRunning(database.db);
    await sql`update run set status = ${status}, started_at = null where id = ${run.runId}`.execute(
      database.db,
    );
    await endLate({ table: "run", id: run.runId }, (tx) => end(tx, run));
    expect(await momentsOf("run_finished", run.runId)).toEqual([{ isOrdered: true }]);
  }
});

test("an attempt at a run that is followed by another ends after its claim", async () => {
  const { run } = await seedRunning(database.db, { maxAttempts: 3 });
  let claimedAt = "";
  await endLate({ table: "run", id: run.runId }, async (tx) => {
    claimedAt = await claimOf("run", run.runId);
    await settle(tx, [settling(run, { action: "finish_or_retry", status: "failed" })], policy);
  });
  expect(await pastMomentsOf("run", run.runId, claimedAt)).toEqual([{ isOrdered: true }]);
});

test("a turn ends after its claim and its start, and a claim that is taken back after it was made", async () => {
  const worker = await seedWorker(database.db);
  const turn = await seedTurn(database.db, worker);
  await endLate({ table: "turn", id: turn.turnId }, (tx) => commitTerminalReply(tx, [replyOf(turn)]));
  expect(await momentsOf("turn_finished", turn.turnId)).toEqual([{ isOrdered: true }]);

  const other = await seedTurn(database.db, worker);
  await sql`update turn set status = 'claimed', started_at = null where id = ${other.turnId}`.execute(
    database.db,
  );
  let claimedAt = "";
  await endLate({ table: "turn", id: other.turnId }, async (tx) => {
    claimedAt = await claimOf("turn", other.turnId);
    const { orgId, turnId, attemptToken } = other;
    await withdraw(tx, [{ orgId, turnId, attemptToken, reason: "not accepted", delayMs: 0 }]);
  });
  expect(await pastMomentsOf("turn", other.turnId, claimedAt)).toEqual([{ isOrdered: true }]);
});
