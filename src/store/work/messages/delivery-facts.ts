import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { unnest } from "../../pg/values/unnest.ts";
import type { Claimed } from "./delivery-claims.ts";

/** The facts of a message beyond the delivery's own row. */
export type Facts = {
  id: string;
  orgName: string;
  watcher: { id: string; slug: string; name: string } | null;
  run: {
    id: string;
    status: string;
    reason: string;
    source: string;
    attempt: number;
    scheduledFor: string | null;
    startedAt: string | null;
    finishedAt: string | null;
    durationMs: number | null;
    exitCode: number | null;
    outputTail: string;
    device: { id: string; label: string } | null;
  } | null;
  /** `extracted_data` of the run's window. */
  data: Record<string, unknown> | null;
  /** For a run without a window. */
  report: { result: string; structured: unknown; attention: string[] } | null;
  question: Record<string, unknown> | null;
};

/** The facts for the messages of the deliveries, as currently in the database. */
export async function gather(db: Db, claimed: readonly Claimed[]): Promise<Map<string, Facts>> {
  if (claimed.length === 0) return new Map();
  const input = unnest("i", claimed, {
    org_id: ["text", (c) => c.orgId],
    id: ["uuid", (c) => c.id],
    watcher_id: ["uuid", (c) => c.watcherId],
    run_id: ["uuid", (c) => c.runId],
    question_id: ["text", (c) => c.subject.questionId ?? null],
    attempt_token: ["uuid", (c) => c.subject.attemptToken ?? null],
  });
  const { rows } = await sql<Facts>`
    select i.id, o.name as "orgName",
      case when w.id is not null then jsonb_build_object('id', w.id, 'slug', w.slug, 'name', w.name) end as watcher,
      case when r.id is not null then jsonb_build_object('id', r.id, 'status', r.status, 'reason', r.reason,
        'source', r.source, 'attempt', r.attempt, 'scheduledFor', r.scheduled_for, 'startedAt', r.started_at,
        'finishedAt', r.finished_at, 'durationMs', r.duration_ms, 'exitCode', r.exit_code, 'outputTail', r.output_tail,
        'device', case when v.id is not null then jsonb_build_object('id', v.id, 'label', v.label) end) end as run,
      x.extracted_data as data,
      case when p.run_id is not null then jsonb_build_object('result', p.result, 'structured', p.structured,
        'attention', p.attention) end as report,
      q.question
    from ${input}
      join org o on o.id = i.org_id
      left join watcher w on w.org_id = i.org_id and w.id = i.watcher_id
      left join lateral (select * from run_all a where a.org_id = i.org_id and a.id = i.run_id limit 1) r on true
      left join device v on v.org_id = i.org_id and v.id = r.device_id
      -- Joined as a whole, the view would be read as a whole.
      left join lateral (select * from "window" y where y.org_id = i.org_id and y.id = r.window_id limit 1) x on true
      left join lateral (select * from run_report e where e.org_id = i.org_id and e.run_id = i.run_id limit 1) p on true
      left join question q on q.org_id = i.org_id and q.work_id = i.run_id and q.attempt_token = i.attempt_token
        and q.id = i.question_id
  `.execute(db);
  return new Map(rows.map((row) => [row.id, row]));
}
