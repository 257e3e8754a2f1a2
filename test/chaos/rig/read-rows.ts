import type { EventRow, Rows, RunRow } from "../rows.ts";
import type { Cluster } from "./cluster.ts";
import { readTraffic } from "./traffic.ts";

const ms = (column: string) => `(extract(epoch from ${column}) * 1000)::float8`;

const attempts = `coalesce((select jsonb_agg(jsonb_build_object(
      'attempt', e->'attempt', 'token', e->'token', 'claimedAt', ${ms("(e->>'claimed_at')::timestamptz")},
      'endedAt', ${ms("(e->>'ended_at')::timestamptz")}, 'isReported', e->'is_reported',
      'isRestored', e->>'reason' like 'forgotten by the database%') order by n)
    from jsonb_array_elements(r.past_attempts) with ordinality as x (e, n)), '[]')`;
const selectRuns = `
      select jsonb_build_object('id', r.id, 'org', r.org_id, 'watcher', r.watcher_id, 'device', r.device_id,
        'source', r.source, 'scheduledFor', ${ms("r.scheduled_for")}, 'dueAt', ${ms("r.due_at")}, 'status', r.status,
        'token', r.attempt_token, 'claimedAt', ${ms("r.claimed_at")}, 'finishedAt', ${ms("r.finished_at")},
        'retryOf', r.retry_of, 'isReported', coalesce(f.is_reported, false), 'windowId', r.window_id,
        'skipReason', r.skip_reason, 'reason', r.reason, 'past', ${attempts}) as row
      from run_all r left join run_finished f on f.org_id = r.org_id and f.id = r.id`;
const selectEvents = `
      select jsonb_build_object('kind', e.kind, 'org', e.org_id, 'run', coalesce(p.run, e.run_id),
        'watcher', coalesce(p.watcher, e.watcher_id), 'rule', e.data->>'rule',
        'scheduledFor', ${ms("(e.data->>'scheduled_for')::timestamptz")},
        'committedAt', ${ms("pg_xact_commit_timestamp(e.xmin)")}) as row
      from event_row e left join lateral unnest(e.run_ids, e.watcher_ids) with ordinality as p (run, watcher, place) on true
      order by e.seq, p.place`;

/** Reads all rows that the checker compares with the history. No work may be under way any more. */
export async function readRows(cluster: Cluster): Promise<Rows> {
  const json = async <T>(text: string) => (await cluster.query<{ row: T }>(text)).map(({ row }) => row);
  const runs: RunRow[] = await json(selectRuns);
  const events: EventRow[] = await json(selectEvents);
  const timeOf = (moment: number) => cluster.clock?.trueTime(moment) ?? { at: moment, isWrong: false };
  const trueTime = <T extends number | null>(moment: T) =>
    (moment === null ? moment : timeOf(moment).at) as T;
  return {
    runs: runs.map((run) => ({
      ...run,
      dueAt: trueTime(run.dueAt),
      claimedAt: trueTime(run.claimedAt),
      finishedAt: trueTime(run.finishedAt),
      past: run.past.map((attempt) => ({
        ...attempt,
        claimedAt: trueTime(attempt.claimedAt),
        endedAt: trueTime(attempt.endedAt),
      })),
    })),
    events: events.map((event) => {
      const { at, isWrong } = timeOf(event.committedAt);
      return { ...event, committedAt: at, isByWrongClock: isWrong };
    }),
    windows: await json(`
      select jsonb_build_object('id', id, 'org', org_id, 'watcher', watcher_id, 'run', run_id, 'output',
        jsonb_build_object(
          'sha256', encode(sha256(convert_to(extracted_data->>'output', 'UTF8')), 'hex'),
          'characters', length(extracted_data->>'output'))) as row
      from "window"`),
    late: await json(`
      select jsonb_build_object('run', subject_id, 'token', attempt_token) as row from late_result where kind = 'run'`),
    slots: await json(`
      select jsonb_build_object('org', org_id, 'watcher', watcher_id, 'scheduledFor', ${ms("scheduled_for")},
        'run', id) as row from run_all where scheduled_for is not null`),
    backlog: await json(`
      select jsonb_build_object('watcher', watcher_id, 'scheduledFor', ${ms("scheduled_for")}) as row from backlog`),
    watchers: await json(`
      select jsonb_build_object('id', w.id, 'org', w.org_id, 'device', w.device_id, 'nextSlotAt', ${ms("s.next_slot_at")}) as row
      from watcher w join schedule_position s on s.org_id = w.org_id and s.watcher_id = w.id`),
    devices: await json(
      `select jsonb_build_object('id', id, 'org', org_id, 'isWorker', is_worker) as row from device`,
    ),
    traffic: await readTraffic(cluster),
  };
}
