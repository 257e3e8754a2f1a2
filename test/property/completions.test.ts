/**
 * The statement of completions against the statement of all settlements: for random runs, watchers
 * and reports both return the same and leave the same rows.
 *
 * PINION_TEST_SEED=<seed> repeats a run of this test.
 */
import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { type Db, transaction, undoOnFailure } from "../../src/store/pg/database.ts";
import { type Completed, complete } from "../../src/store/work/attempts/completions.ts";
import { type Settled, settle } from "../../src/store/work/attempts/settlements.ts";
import { useDatabase } from "../support/database.ts";
import { inAnyOrder } from "../support/locks.ts";
import { isLong } from "../support/long.ts";
import { seedRunning } from "../support/rows.ts";
import { policy } from "../support/surroundings.ts";
import { checkFor } from "../support/timed-property.ts";

const database = useDatabase({ per: "file" });
const timeLimitMs = isLong ? 30_000 : 5_000;
const watchersMax = 4;

const rare = fc.boolean().chain((isThere) => (isThere ? fc.boolean() : fc.constant(false)));
const agoMs = fc.option(fc.nat({ max: 100_000 }), { nil: undefined });

/** The facts of one run that may decide about its end. */
const facts = fc.record({
  watcher: fc.record({
    overlap: fc.constantFrom("skip", "queue_one", "queue_all"),
    notify: fc.option(fc.constant([{ to: "us", when: "always" }])),
    consecutive_failures: fc.nat({ max: 12 }),
    backoff_until: fc.option(fc.constant("2100-01-01T00:00:00Z")),
    window_cursor_at: fc.option(fc.constantFrom("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z")),
    last_window_id: fc.option(fc.constant(randomUUID())),
    last_window_at: fc.option(fc.constant("2000-01-01T00:00:00Z")),
  }),
  run: fc.record({
    status: fc.constantFrom("claimed", "running"),
    cancel_requested_at: fc.option(fc.constant("2000-01-01T00:00:00Z")),
    cancel_reason: fc.option(fc.constant("asked")),
    pushed_at: fc.option(fc.constant("2000-01-01T00:00:00Z")),
    started_at: fc.option(fc.constantFrom("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z")),
    max_attempts: fc.constantFrom(1, 3),
    deferrals: fc.nat({ max: 13 }),
  }),
  report: fc.record({
    reason: fc.constantFrom("", "all said"),
    output: fc.constantFrom("", "done", "x".repeat(9_000)),
    isOutputTruncated: fc.boolean(),
    answer: fc.constantFrom(undefined, { result: "42", structured: { a: 1 } }),
    exitCode: fc.option(fc.integer({ min: 0, max: 255 }), { nil: undefined }),
    signal: fc.constantFrom("", "SIGTERM"),
    durationMs: agoMs,
    pushedAgoMs: agoMs,
    startedAgoMs: agoMs,
  }),
  isStale: rare,
  isOfAnother: rare,
  hasBacklog: rare,
  hasFollower: rare,
  isWatcherGone: rare,
});

type Facts = typeof facts extends fc.Arbitrary<infer One> ? One : never;
type Running = Awaited<ReturnType<typeof seedRunning>>;

async function prepare(tx: Db, { run, watcher }: Running, one: Facts): Promise<Completed> {
  const { orgId, watcherId } = watcher;
  await sql`
    update watcher w set (overlap, notify, consecutive_failures, backoff_until, window_cursor_at, last_window_id, last_window_at)
      = (r.overlap, r.notify, r.consecutive_failures, r.backoff_until, r.window_cursor_at, r.last_window_id, r.last_window_at)
    from jsonb_populate_record(null::watcher, ${JSON.stringify(one.watcher)}::jsonb) r where w.id = ${watcherId}`.execute(
    tx,
  );
  await sql`
    update run w set (status, cancel_requested_at, cancel_reason, pushed_at, started_at, max_attempts, deferrals)
      = (r.status, r.cancel_requested_at, r.cancel_reason, r.pushed_at, r.started_at, r.max_attempts, r.deferrals)
    from jsonb_populate_record(null::run, ${JSON.stringify(one.run)}::jsonb) r where w.id = ${run.runId}`.execute(
    tx,
  );
  if (one.hasBacklog)
    await sql`insert into backlog (org_id, watcher_id, scheduled_for, source) values (${orgId}, ${watcherId}, now(), 'scheduled')`.execute(
      tx,
    );
  if (one.hasFollower)
    await sql`insert into watcher_after (org_id, watcher_id, after_id)
      select org_id, id, ${watcherId} from watcher where org_id = ${orgId} and id <> ${watcherId} limit 1`.execute(
      tx,
    );
  if (one.isWatcherGone) await sql`delete from watcher where id = ${watcherId}`.execute(tx);
  return {
    ...one.report,
    ...{ orgId, workId: run.runId, action: "finish_or_retry", status: "completed" },
    attemptToken: one.isStale ? randomUUID() : run.attemptToken,
    deviceId: one.isOfAnother ? randomUUID() : run.deviceId,
  };
}

/** The end's return and its rows; everything is undone. */
async function endOf(tx: Db, end: () => Promise<Settled[]>) {
  const thrown = await undoOnFailure(tx, async () => {
    const settled = await end();
    const { rows } = await sql`
      select (select jsonb_agg(r order by r.id) from run r) as live, (select jsonb_agg(f order by f.id) from run_finished f) as ended,
        (select jsonb_agg(w order by w.id) from watcher w) as watchers`.execute(tx);
    throw Object.assign(new Error("undone"), {
      seen: { settled: settled.sort(byRun).map((one) => ({ ...one })), rows },
    });
  });
  return (thrown as { error: { seen?: unknown; message: string } }).error.seen ?? thrown;
}

const byRun = (a: Settled, b: Settled) => (a.runId < b.runId ? -1 : 1);

test("R5: a completion ends its run as the settlement of everything does, for any run, watcher and report", async () => {
  const { db } = database;
  const running: Running[] = [];
  for (let made = 0; made < watchersMax; made++) running.push(await seedRunning(db));
  let ends = 0;
  await checkFor(
    { name: "completions", limitMs: timeLimitMs },
    fc.array(facts, { minLength: 1, maxLength: watchersMax }),
    async (all) => {
      const undone = transaction(db, async (tx) => {
        await inAnyOrder(tx);
        const completions: Completed[] = [];
        for (const [index, one] of all.entries())
          completions.push(await prepare(tx, running[index] as Running, one));
        const seen = await endOf(tx, () => complete(tx, completions));
        expect(seen).toEqual(await endOf(tx, () => settle(tx, completions, policy)));
        ends += (seen as { settled: Settled[] }).settled.length;
        throw new Error("undone");
      });
      await expect(undone).rejects.toThrow("undone");
    },
  );
  expect(ends).toBeGreaterThan(20);
});
