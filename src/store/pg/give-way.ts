/**
 * Locks on whole tables, for changes of the schema beside statements that run. A wait for a table
 * while other tables are locked can close a circle with a transaction that has read the one and now
 * wants the other; PostgreSQL ends the transaction that finds the circle, after `deadlock_timeout`
 * of its own wait. Here all tables are locked within half of that time, or given up together: so no
 * transaction can wait long enough for them to find a circle, and none is ever ended.
 *
 *   autovacuum out ─▶ lock all ─▶ held
 *        ▲              └─ within half of deadlock_timeout not ─▶ all let go ─▶ pause ─┐
 *        └────────────────────────────────────────────────────────────────────────────┘
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { codeOf } from "../../errors.ts";
import { onlyRow } from "./values/only-row.ts";

/** The modes that statements of replicas wait for, the strongest first. */
export const lockModes = ["access exclusive", "exclusive", "share row exclusive", "share"] as const;
export type LockMode = (typeof lockModes)[number];

/** The tables to lock in each mode. */
export type TableLocks = ReadonlyMap<LockMode, readonly string[]>;

/** Sends a statement within the open transaction. */
export type Send = (statement: string) => Promise<{ rows: unknown[] }>;

/** Milliseconds after which the tables are given up for good, if the caller names no other time. */
const patienceMsDefault = 60_000;
/** Milliseconds between two tries: a random time between half of the number and one and a half. */
const pauseMs = 300;
/** Milliseconds that a manual vacuum or another change of the schema is waited for at a time. */
const maintenanceMs = 10_000;

/**
 * Locks the tables, with their partitions, until the end of the transaction. Fails with
 * PostgreSQL's error of the last try if the tables were in use for `patienceMs`, a minute by
 * default.
 */
export async function lockGivingWay(
  send: Send,
  locks: TableLocks,
  patienceMs = patienceMsDefault,
): Promise<void> {
  const wanted = [...locks].filter(([, tables]) => tables.length > 0);
  if (wanted.length === 0) return;
  const { waitMs, usualMs } = await timesOf(send);
  const endsAt = performance.now() + patienceMs;
  for (;;) {
    await send("savepoint giving_way");
    try {
      await lockAll(send, wanted, waitMs);
      await send(`set local statement_timeout = ${usualMs}; release savepoint giving_way`);
      return;
    } catch (error) {
      // The locks of the try are free at once.
      await send("rollback to savepoint giving_way; release savepoint giving_way");
      if (!isInUse(error) || performance.now() > endsAt) throw error;
    }
    await delay(pauseMs * (0.5 + Math.random()));
  }
}

/** Milliseconds: half of `deadlock_timeout`, and the connection's own limit of a statement. */
async function timesOf(send: Send): Promise<{ waitMs: number; usualMs: number }> {
  const { rows } = await send(`
    select greatest(1, (select setting::int from pg_settings where name = 'deadlock_timeout') / 2) as "waitMs",
      (select setting::int from pg_settings where name = 'statement_timeout') as "usualMs"`);
  return onlyRow(rows as { waitMs: number; usualMs: number }[]);
}

async function lockAll(
  send: Send,
  wanted: readonly (readonly [LockMode, readonly string[]])[],
  waitMs: number,
): Promise<void> {
  const list = (tables: readonly string[]) => tables.map((name) => pg.escapeIdentifier(name)).join(", ");
  // An autovacuum gives way only to a wait of deadlock_timeout. In this mode nothing else waits.
  const all = list(wanted.flatMap(([, tables]) => tables));
  await send(`set local lock_timeout = ${maintenanceMs}`);
  await send(`lock table ${all} in share update exclusive mode`);
  // One statement, whose time is limited as a whole.
  const statements = wanted.map(([mode, tables]) => `lock table ${list(tables)} in ${mode} mode;`);
  await send(`set local lock_timeout = 0; set local statement_timeout = ${waitMs}`);
  await send(`do $giving_way$ begin ${statements.join(" ")} end $giving_way$`);
}

/** lock_not_available, query_canceled (the limit of the time), deadlock_detected */
function isInUse(error: unknown): boolean {
  return ["55P03", "57014", "40P01"].includes(codeOf(error) ?? "");
}
