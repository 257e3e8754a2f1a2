import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { unnest } from "../../pg/values/unnest.ts";
import type { AttemptName, Settlement } from "./settlements.ts";

/**
 * Late results (R10): the end of an attempt that had been taken away before its device reported.
 *
 *   settles   no later attempt has been claimed: the run ends with the report after all, whether
 *             waiting for its next attempt (which is dropped) or ended without a result
 *   kept      a later attempt exists, or the run has a result: the report is stored beside the run
 *
 * A report is stored once per attempt token; an existing result is never overwritten. Reports of
 * runs are stored by late-reports.ts, replies of turns by late-replies.ts.
 */

/** A device's report of an attempt that is no longer current. */
export type LateReport = AttemptName & {
  status: "completed" | "failed" | "timeout" | "cancelled";
  output: string;
  isOutputTruncated: boolean;
  /** For an agent with a report. */
  answer?: Settlement["answer"];
  /** The attempt failed for a temporary reason. */
  laterMs?: number | undefined;
  exitCode: number | undefined;
  signal: string;
  reason: string;
  durationMs: number | undefined;
};

export type LateVerdict = {
  /**
   * `superseded`: stored as a late result of its attempt. `full`: not stored, because the run has
   * its maximum.
   */
  verdict: "stored_late" | "already_stored" | "superseded" | "unknown" | "full";
  windowId: string | null;
};

/** A stored late report, and its attempt. */
export type KeptResult = AttemptName & {
  watcherId: string | null;
  attempt: number;
  outcome: LateReport["status"];
};

/** Maximum late results of a run or a turn. */
export const lateResultsMax = 20;
/**
 * Maximum bytes of output of a run's or turn's late results together; a longer output keeps its
 * end.
 */
export const lateBytesMax = 2_097_152;

/** The tables of a kind of work, in the order of their locks. */
type SubjectTables = readonly ["run", "run_finished"] | readonly ["turn", "turn_finished"];

/**
 * Locks the live rows and then the ended rows of the reports' work, in the common order for locking
 * several. Two statements, before the statement that decides: a statement sees no writes of the
 * transactions that it has waited for.
 */
export async function lockSubjects(
  tx: Db,
  tables: SubjectTables,
  reports: readonly { orgId: string; workId: string }[],
): Promise<void> {
  const names = unnest("i", reports, {
    org_id: ["text", (r) => r.orgId],
    work_id: ["uuid", (r) => r.workId],
  });
  for (const table of tables) {
    await sql`
      select from (select distinct org_id, work_id from ${names} order by org_id, work_id) i
        cross join lateral (select from ${sql.table(table)} where org_id = i.org_id and id = i.work_id for update) t
    `.execute(tx);
  }
}

/**
 * The stored late results of a subject: their number, their bytes, and whether the attempt
 * `i.token` is one of them.
 */
export const storedOf = (subjectId: RawBuilder<unknown>) => sql`
  select count(*) as kept, coalesce(sum(octet_length(l.output) + octet_length(l.answer::text)), 0) as bytes,
    coalesce(bool_or(l.attempt_token = i.token), false) as is_there
  from late_result l where l.org_id = i.org_id and l.subject_id = ${subjectId}`;

export type LateResultRow = {
  attempt: number;
  deviceId: string;
  outcome: LateReport["status"];
  hasSettled: boolean;
  output: string;
  isOutputTruncated: boolean;
  answer: { result?: string; structured?: unknown };
  exitCode: number | null;
  signal: string;
  reason: string;
  durationMs: number | null;
  storedAt: Date;
};

/**
 * The late results of a run or turn, oldest first; at most 20, with about 2 MiB of output together.
 */
export async function list(db: Db, subject: { orgId: string; id: string }): Promise<LateResultRow[]> {
  const { rows } = await sql<LateResultRow>`
    select attempt, device_id as "deviceId", outcome, has_settled as "hasSettled", output,
      is_output_truncated as "isOutputTruncated", answer, exit_code as "exitCode", signal, reason, duration_ms as "durationMs",
      finished_at as "storedAt"
    from late_result where org_id = ${subject.orgId} and subject_id = ${subject.id} order by id
  `.execute(db);
  return rows;
}

/**
 * Delays pending runs whose latest attempt is about to be reported: the device announced the result
 * in its hello and is asked for it, so the runs must not start again meanwhile. Other attempts have
 * no effect.
 */
export async function awaitResults(
  tx: Db,
  options: {
    orgId: string;
    attempts: readonly { workId: string; attemptToken: string }[];
    waitMs: number;
  },
): Promise<void> {
  if (options.attempts.length === 0) return;
  const input = unnest("i", options.attempts, {
    run_id: ["uuid", (a) => a.workId],
    token: ["uuid", (a) => a.attemptToken],
  });
  await sql`
    with waiting as materialized (
      select r.id from (select * from ${input} order by run_id) i
        cross join lateral (
          select id from run
          where org_id = ${options.orgId} and id = i.run_id and status = 'pending'
            and past_attempts -> -1 ->> 'token' = i.token::text
            and coalesce(not_before, now()) < now() + ${options.waitMs} * interval '1 ms'
          for update skip locked
        ) r
      where not exists (select from late_result l
        where l.org_id = ${options.orgId} and l.subject_id = i.run_id and l.attempt_token = i.token)
    )
    update run set not_before = now() + ${options.waitMs} * interval '1 ms'
    from waiting w where run.org_id = ${options.orgId} and run.id = w.id
  `.execute(tx);
}
