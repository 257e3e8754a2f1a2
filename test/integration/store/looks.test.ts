/** The looks of idle loops share statements, and one that is refused fails alone. */
import { sql } from "kysely";
import pg from "pg";
import { afterEach, expect, test, vi } from "vitest";
import type { Db } from "../../../src/store/pg/database.ts";
import { createLooks, type Look, looksAlone } from "../../../src/store/pg/looks.ts";
import { onlyRow } from "../../../src/store/pg/values/only-row.ts";
import * as active from "../../../src/store/work/attempts/active.ts";
import * as attempts from "../../../src/store/work/attempts/attempts.ts";
import * as deliveries from "../../../src/store/work/messages/delivery-claims.ts";
import * as bulks from "../../../src/store/work/runs/bulks.ts";
import * as placements from "../../../src/store/work/runs/placements.ts";
import * as runs from "../../../src/store/work/runs/runs.ts";
import { lookOverdue } from "../../../src/store/work/turns/lost-turns.ts";
import * as questions from "../../../src/store/work/turns/questions.ts";
import * as clockJumps from "../../../src/store/work/watchers/clock-jumps.ts";
import { useDatabase } from "../../support/database.ts";
import { reapRules, seedRunning } from "../../support/rows.ts";

const t = useDatabase();
afterEach(() => vi.restoreAllMocks());

test("what all loops of an idle replica ask at one moment is one statement", async () => {
  const looks = createLooks(t.db);
  const query = vi.spyOn(pg.Client.prototype, "query");
  const nothing = { run: false, turn: false };
  const [clock, ...others] = await Promise.all([
    looks.ask(clockJumps.reading),
    looks.ask(attempts.lookLost(reapRules)),
    looks.ask(lookOverdue({ ttlMs: 60_000, isQuiet: false })),
    looks.ask(runs.nextExpiryMs),
    looks.ask(questions.nextDeadlineMs),
    looks.ask(deliveries.nextMs),
    looks.ask(bulks.isRunning),
    looks.ask(placements.gatedOrgs),
    looks.ask(active.lookWaiting(5_000)),
  ]);
  expect(query.mock.calls.length).toBe(1);
  expect(Math.abs(clock.now.getTime() - Date.now())).toBeLessThan(60_000);
  const isIdle = { isCancelling: false, isClaimed: false, isWaiting: nothing };
  expect(others).toEqual([false, false, undefined, undefined, undefined, false, [], isIdle]);
});

test("a look that the database refuses fails alone", async () => {
  const looks = createLooks(t.db);
  const bad: Look<number> = { expression: sql`1 / (select 0)`, read: Number };
  const [refused, answered] = await Promise.allSettled([looks.ask(bad), looks.ask(bulks.isRunning)]);
  expect(refused).toMatchObject({ status: "rejected", reason: { message: "division by zero" } });
  expect(answered).toEqual({ status: "fulfilled", value: false });
});

test("a look sees what there is to do", async () => {
  const { run } = await seedRunning(t.db);
  const looks = createLooks(t.db);
  await sql`update run set cancel_requested_at = now() - interval '1 day' where id = ${run.runId}`.execute(
    t.db,
  );
  expect(await looks.ask(attempts.lookLost(reapRules))).toBe(true);
  expect(await looks.ask(active.lookWaiting(5_000))).toMatchObject({ isCancelling: true });
});

test("the look for lost attempts passes over new ones by their own rows", async () => {
  const { run } = await seedRunning(t.db);
  expect(await presenceReadForLost()).toBe(0);
  await sql`update run set claimed_at = now() - interval '10 min' where id = ${run.runId}`.execute(t.db);
  expect(await presenceReadForLost()).toBe(1);
});

/** The rows of presence that the look for lost attempts reads. */
function presenceReadForLost(): Promise<number> {
  const readBy = async (tx: Db) => {
    const { rows } = await sql<{ read: number }>`
      select (seq_tup_read + idx_tup_fetch)::int as read
      from pg_stat_xact_user_tables where relname = 'presence'`.execute(tx);
    return onlyRow(rows).read;
  };
  return t.db.transaction().execute(async (tx) => {
    const before = await readBy(tx);
    expect(await looksAlone(tx).ask(attempts.lookLost(reapRules))).toBe(false);
    return (await readBy(tx)) - before;
  });
}
