import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { takingData } from "../../pg/failures.ts";
import { unnest } from "../../pg/values/unnest.ts";
import { lateBytesMax, lateResultsMax, lockSubjects, storedOf } from "../attempts/late-results.ts";
import { outputTailCharacters } from "../attempts/settlements.ts";
import type { FinishedTurnStatus } from "./turns.ts";

/**
 * Late replies (R10): a reply to a turn that has ended, waits again, or belongs to another worker.
 * The reply is stored beside the turn and is no reply of the conversation: the conversation has its
 * reply, and only the lease's holder writes the snapshot.
 */

export type LateReply = {
  orgId: string;
  turnId: string;
  attemptToken: string;
  holderId: string;
  status: FinishedTurnStatus;
  reason: string;
  reply?: string;
  isReplyTruncated?: boolean;
  exitCode?: number | undefined;
  signal?: string;
  durationMs?: number | undefined;
};

/** `full`: not stored, because the turn has its maximum. */
export type LateReplyVerdict = "superseded" | "unknown" | "full";

export type KeptReply = { orgId: string; turnId: string; holderId: string; attempt: number; outcome: string };

/**
 * Stores late replies in the caller's transaction, each once per attempt token, and returns a
 * verdict for each. Locks live turns and then ended turns, in the common order for locking several.
 */
export async function keep(
  tx: Db,
  replies: readonly LateReply[],
): Promise<{ verdicts: LateReplyVerdict[]; kept: KeptReply[] }> {
  if (replies.length === 0) return { verdicts: [], kept: [] };
  await lockSubjects(
    tx,
    ["turn", "turn_finished"],
    replies.map(({ orgId, turnId }) => ({ orgId, workId: turnId })),
  );
  const query = sql<KeptReply & { verdict: LateReplyVerdict; isKept: boolean }>`
    with judged as materialized (${judgedReplies(inputOf(replies))}),
    noted as (${lateResultsStored})
    select org_id as "orgId", turn_id as "turnId", reporter as "holderId", attempt, outcome, fate = 'kept' as "isKept",
      case when fate in ('unknown', 'full') then fate else 'superseded' end as verdict
    from judged order by ord
  `;
  const { rows } = await takingData(() => query.execute(tx));
  return {
    verdicts: rows.map((row) => row.verdict),
    kept: rows.flatMap(({ isKept, verdict, ...reply }) => (isKept ? [reply] : [])),
  };
}

const inputOf = (replies: readonly LateReply[]) =>
  unnest("i", replies, {
    org_id: ["text", (r) => r.orgId],
    turn_id: ["uuid", (r) => r.turnId],
    token: ["uuid", (r) => r.attemptToken],
    reporter: ["uuid", (r) => r.holderId],
    outcome: ["text", (r) => r.status],
    reply: ["text", (r) => r.reply ?? ""],
    is_truncated: ["boolean", (r) => r.isReplyTruncated ?? false],
    exit_code: ["int", (r) => r.exitCode ?? null],
    signal: ["text", (r) => r.signal ?? ""],
    why: ["text", (r) => r.reason],
    duration_ms: ["bigint", (r) => r.durationMs ?? null],
  });

/** The attempt that the reply names: the last attempt of an ended turn, or a withdrawn claim. */
const repliedAttempt = sql`
  select coalesce(case when s.attempt_token = i.token and s.holder_id = i.reporter then s.attempt end,
    (select (entry->>'attempt')::int from jsonb_array_elements(s.past_attempts) entry
      where entry->>'token' = i.token::text and (entry->>'holder_id')::uuid = i.reporter limit 1)) as attempt
  from (
    select attempt_token, holder_id, attempt, past_attempts from turn_finished
    where org_id = i.org_id and id = i.turn_id
    union all
    -- A reply to the current attempt is not late.
    select null, null, null, past_attempts from turn where org_id = i.org_id and id = i.turn_id
  ) s limit 1`;

/** Each reply with its attempt and its fate: only `kept` is stored. */
const judgedReplies = (input: RawBuilder<unknown>) => sql`
  select i.*, t.attempt, k.bytes,
    case
      when t.attempt is null then 'unknown'
      when k.is_there then 'there'
      -- The answer to a cancel says only that the program is gone.
      when i.outcome = 'cancelled' and i.reply = '' then 'nothing'
      -- Replies of the same statement are not counted: several replies to one turn are rare.
      when k.kept >= ${lateResultsMax} then 'full'
      else 'kept'
    end as fate
  from ${input}
    left join lateral (${repliedAttempt}) t on true
    cross join lateral (${storedOf(sql.ref("i.turn_id"))}) k`;

/** The kept replies as rows of `late_result`. */
const lateResultsStored = sql`
  insert into late_result (org_id, subject_id, kind, attempt, attempt_token, device_id, outcome, has_settled, output,
    is_output_truncated, exit_code, signal, reason, duration_ms)
  select j.org_id, j.turn_id, 'turn', j.attempt, j.token, j.reporter, j.outcome, false,
    case when c.is_too_much then right(j.reply, ${outputTailCharacters}) else j.reply end,
    j.is_truncated or c.is_too_much, j.exit_code, j.signal, j.why, j.duration_ms
  from judged j cross join lateral (select j.bytes + octet_length(j.reply) > ${lateBytesMax} as is_too_much) c
  where j.fate = 'kept'`;
