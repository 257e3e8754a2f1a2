import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import { unnest } from "../../pg/values/unnest.ts";
import { timeAsked } from "../attempts/attempt-rules.ts";
import { type SessionName, sessionColumns } from "../service/presence.ts";
import { turnWaitMsMax } from "./questions.ts";
import type { LiveTurnStatus } from "./turns.ts";

/**
 * Live turns that have to end without a reply, locked for the caller: turns past a deadline, and
 * turns of sessions whose streams broke. turn-settlements.ts ends them.
 */

/** A live turn to end, locked. */
export type OverdueTurn = {
  /** The time by which it is overdue. */
  now: Date;
  orgId: string;
  turnId: string;
  attemptToken: string | null;
  status: LiveTurnStatus;
  rule: "not_started" | "no_device" | "expired" | "cancelled" | "silent";
  lastBeatAt: Date | null;
};

type SilenceRules = { ttlMs: number; isQuiet: boolean };

/** Live turns with the rule by which each is overdue; null: none. */
const overdueTurns = ({ ttlMs, isQuiet }: SilenceRules) => sql`
    select t.org_id, t.id, t.attempt_token, t.deadline_at, r.rule
    from turn t cross join lateral (
      select case
        when t.status = 'pending' then case
          when t.start_deadline_at < now() then 'not_started'
          -- A turn armed while its device was being deleted was not seen by the deletion.
          when t.device_id is not null and not exists (
            select from device d where d.org_id = t.org_id and d.id = t.device_id) then 'no_device'
        end
        when t.expires_at < now() and t.expires_at < now() - least(${turnWaitMsMax} * interval '1 ms', (${timeAsked("t")}))
          then 'expired'
        when ${isQuiet} then null
        when t.cancel_requested_at < now() - ${ttlMs} * interval '1 ms' then 'cancelled'
        when t.deadline_at < now() then 'silent'
      end as rule
    ) r`;

/** Whether there may be overdue turns, by the rules of {@link lockOverdue}. */
export function lookOverdue(rules: SilenceRules): Look<boolean> {
  return {
    expression: sql`exists (select from (${overdueTurns(rules)}) o where o.rule is not null)`,
    read: Boolean,
  };
}

/**
 * Locks up to `limit` turns past their deadline, by the database's clock (R7), with the rule that
 * applies to each. Only live turns are read, however many have ended. Rows locked by another
 * replica are skipped. `isQuiet` leaves out the rules about silence: after an outage of the
 * database every holder seems silent.
 */
export async function lockOverdue(tx: Db, options: SilenceRules & { limit: number }): Promise<OverdueTurn[]> {
  const { rows } = await sql<OverdueTurn>`
    with overdue as materialized (
      select o.* from (${overdueTurns(options)}) o where o.rule is not null limit ${options.limit}
    )
    select t.org_id as "orgId", t.id as "turnId", t.attempt_token as "attemptToken", t.status, o.rule,
      t.last_beat_at as "lastBeatAt", now()
    -- The rule is judged again on the locked row: the turn may have been claimed meanwhile, or have sent a heartbeat.
    from turn t join overdue o on o.org_id = t.org_id and o.id = t.id
      and t.attempt_token is not distinct from o.attempt_token and t.deadline_at is not distinct from o.deadline_at
    order by t.org_id, t.id
    for update of t skip locked
  `.execute(tx);
  return rows;
}

export type LockedTurn = {
  orgId: string;
  turnId: string;
  attemptToken: string;
  status: "claimed" | "running";
};

/**
 * Locks the turns held by the sessions, whose streams broke. Turns adopted by newer sessions are
 * not included.
 */
export async function lockOfSessions(tx: Db, sessions: readonly SessionName[]): Promise<LockedTurn[]> {
  if (sessions.length === 0) return [];
  const input = unnest("i", sessions, sessionColumns);
  const { rows } = await sql<LockedTurn>`
    select t.org_id as "orgId", t.id as "turnId", t.attempt_token as "attemptToken", t.status
    from turn t join ${input} on t.org_id = i.org_id and t.holder_id = i.device_id and t.claimed_epoch = i.epoch
      and t.claimed_session = i.session_id
    where t.status <> 'pending'
    -- One order for all statements that lock several turns; so turns are not looked up session by session.
    order by t.org_id, t.id
    for update of t
  `.execute(tx);
  return rows;
}
