import { sql } from "kysely";

/**
 * Gates: the conditions under which a run is placed before it is claimed (placements.ts). A run
 * without placement has none.
 */

/**
 * For slotRows.record: the gates of the written runs, from the current placement of their watchers
 * (R4).
 */
export const insertOfWanted = sql`
    gated as (
      insert into run_gate (org_id, run_id, watcher_id, selector, asked_by, continues, group_name, group_max, group_per,
        priority, rate_key, rate_per_minute, spread)
      select q.org_id, q.run_id, q.watcher_id, q.placement->>'selector', q.asked_by,
        coalesce(v.agent_work->>'continueMode' = 'CONTINUE_MODE_SESSION', false),
        q.placement->'group'->>'name', (q.placement->'group'->>'max')::int, q.placement->'group'->>'per',
        coalesce((q.placement->>'priority')::int, 0), q.placement->'rate'->>'key', (q.placement->'rate'->>'perMinute')::int,
        case when q.placement ? 'selector' then coalesce(q.placement->>'spread', 'one') end
      from wanted q
        left join watcher_revision v on v.org_id = q.org_id and v.watcher_id = q.watcher_id and v.version = q.version
      where q.skip_reason is null and q.is_gated
    ),`;
