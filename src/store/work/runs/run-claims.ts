import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";

/**
 * Claims of runs: sessions of devices take the runs pinned to them, fleet workers take unpinned
 * runs. A claimed run comes with its assignment.
 */

export type Want = {
  orgId: string;
  deviceId: string;
  epoch: number;
  sessionId: string;
  slots: number;
  /** A fleet worker's agent kinds. Null for a device, which takes runs pinned to it. */
  kinds: readonly string[] | null;
  /** A device also takes runs before their due time, and holds them until then. */
  isAhead?: boolean;
};

/** A claimed run, with the content of its assignment. */
export type ClaimedRun = AssignmentFacts & {
  orgId: string;
  runId: string;
  deviceId: string;
  attemptToken: string;
  attempt: number;
  source: string;
  dueAt: Date;
  /**
   * Milliseconds for which the run could have been claimed, by the database's clock; 0 for a run
   * that was claimed as it was recorded.
   */
  dueForMs: number;
  scheduledFor: Date | null;
  windowStart: Date;
  windowEnd: Date;
  watcherId: string;
};

/**
 * What an assignment takes from the rows of its watcher and agent (R4: from the revisions that were
 * current when the run was materialized).
 */
export type AssignmentFacts = {
  agentKind: string;
  notification: string;
  timeoutMs: number;
  /** The run's input, as JSON; null: none. */
  input: string | null;
  watcherVersion: number;
  watcherSlug: string | null;
  watcherName: string | null;
  prompt: string | null;
  extractionSchema: unknown;
  /** See WatcherValues.agentWork. */
  agentWork: unknown;
  /** The session of the watcher's last run on the device, if the watcher continues sessions. */
  agentSession: { id: string; run_id: string } | null;
  agentId: string;
  agentVersion: number;
  agentName: string | null;
  agentSettings: unknown;
  priorWindow: {
    id: string;
    run_id: string;
    window_start: string;
    window_end: string;
    model_used: string;
    kind: string;
    output: string;
    structured: unknown;
    created_at: string;
  } | null;
};

/** Maximum characters of the watcher's latest result in an assignment. */
const priorOutputCharacters = 16_384;

/**
 * Unpinned runs of a kind that a claim reads beyond twice its need: other replicas may hold the
 * oldest.
 */
const heldElsewhereMax = 100;

/**
 * Splits wants into parts for one {@link claim} each. Within a part the workers of an org offer the
 * same kinds, so that the org's unpinned runs are locked once and distributed, and no run is picked
 * twice. Fleets with one set of kinds make one part.
 */
export function partsOf(wants: readonly Want[]): Want[][] {
  const parts: Want[][] = [];
  const partOf = new Map<string, number>();
  const kindsOf = new Map<string, number>();
  for (const want of wants) {
    let part = 0;
    if (want.kinds) {
      const name = `${want.orgId} ${kindsText(want)}`;
      part = partOf.get(name) ?? kindsOf.get(want.orgId) ?? 0;
      if (!partOf.has(name)) {
        partOf.set(name, part);
        kindsOf.set(want.orgId, part + 1);
      }
    }
    const wanted = parts[part];
    if (wanted) wanted.push(want);
    else parts[part] = [want];
  }
  return parts;
}

/**
 * A claimable run. Its device may claim a run before the due time, workers only a due run. Held
 * runs wait for placements.ts and are excluded from the indexes that claims read.
 */
export const isPending = sql`not is_held and status = 'pending' and (not_before is null or not_before <= now())
            and (start_deadline_at is null or start_deadline_at > now())`;

const kindsText = (want: Want) => want.kinds && JSON.stringify([...want.kinds].sort());

/**
 * The columns of an assignment beside its run, from the rows that {@link assignmentJoins} joins to
 * the runs `c`.
 */
export const assignmentColumns = sql`
  wr.name as "watcherName", wr.prompt, wr.extraction_schema as "extractionSchema",
  coalesce(wr.agent_work, '{}') as "agentWork", ls.agent_session as "agentSession", c.agent_id as "agentId",
  c.agent_version as "agentVersion", ar.name as "agentName", ar.settings as "agentSettings",
  case when pw.id is not null then json_build_object(
    'id', pw.id, 'run_id', pw.id, 'window_start', pw.window_start, 'window_end', pw.window_end,
    'model_used', 'device-cli', 'kind', 'device_cli_output',
    'output', left(coalesce(pw.answer->>'result', pw.output), ${priorOutputCharacters}),
    'structured', case when length(pw.answer->>'structured') <= ${priorOutputCharacters} then pw.answer->'structured' end,
    'created_at', coalesce(pw.stored_at, pw.finished_at))
  when kw.id is not null then json_build_object(
    'id', kw.id, 'run_id', kw.run_id, 'window_start', kw.window_start, 'window_end', kw.window_end,
    'model_used', kw.model_used, 'kind', coalesce(kw.extracted_data->>'kind', ''),
    'output', left(coalesce(kw.extracted_data->>'result', kw.extracted_data->>'output', ''), ${priorOutputCharacters}),
    'structured', case when length(kw.extracted_data->>'structured') <= ${priorOutputCharacters}
      then kw.extracted_data->'structured' end,
    'created_at', kw.created_at) end as "priorWindow", rs.input`;

/**
 * Joins the revisions that were current when the run was recorded (R4), and the watcher's latest
 * window and agent session.
 */
export function assignmentJoins(
  of: Record<"runId" | "version" | "windowId" | "windowAt", RawBuilder<unknown>>,
) {
  const { runId, version, windowId, windowAt } = of;
  return sql`
    -- "offset" keeps this and the look-up in window_kept apart: their first conditions spare it for nearly all runs, and
    -- a plan made while a table was empty would otherwise read the whole table for each run.
    left join lateral (
      select input::text as input from run_start
      -- A slot has no input.
      where c.source not in ('scheduled', 'backfill') and org_id = c.org_id and run_id = ${runId}
      offset 0
    ) rs on true
    left join watcher_revision wr on wr.org_id = c.org_id and wr.watcher_id = c.watcher_id and wr.version = ${version}
    left join agent_revision ar on ar.org_id = c.org_id and ar.agent_id = c.agent_id and ar.version = c.agent_version
    -- In the words of the view "window", but with the moment that names the partition.
    left join run_finished pw on pw.org_id = c.org_id and pw.id = ${windowId} and pw.finished_at = ${windowAt}
      and pw.output is not null
    left join lateral (
      select id, run_id, window_start, window_end, model_used, extracted_data, created_at from window_kept
      where pw.id is null and ${windowId} is not null and org_id = c.org_id and id = ${windowId}
      offset 0
    ) kw on true
    left join lateral (
      select jsonb_build_object('id', rp.session_id, 'run_id', rp.run_id) as agent_session
      from run_finished f join run_report rp on rp.org_id = f.org_id and rp.run_id = f.id
      where wr.agent_work->>'continueMode' = 'CONTINUE_MODE_SESSION' and f.org_id = c.org_id
        and f.watcher_id = c.watcher_id and f.device_id = c.device_id and rp.session_id <> ''
      order by f.id desc limit 1
    ) ls on true`;
}

function inputOf(wants: readonly Want[]) {
  return unnest("w", wants, {
    org_id: ["text", (w) => w.orgId],
    device_id: ["uuid", (w) => w.deviceId],
    epoch: ["bigint", (w) => w.epoch],
    session_id: ["uuid", (w) => w.sessionId],
    slots: ["int", (w) => w.slots],
    kinds: ["text", kindsText],
    is_ahead: ["boolean", (w) => w.isAhead ?? false],
  });
}

/**
 * Maximum milliseconds that a run is claimed before its moment. Runs are recorded minutes ahead at
 * most; a wrong clock may have recorded a run for a day to come.
 */
export const aheadMsMax = 3_600_000;

/** The pending runs of devices. */
const pinned = sql`
    pinned as materialized (
      select r.org_id, r.id, s.device_id, s.epoch, s.session_id
      from seated s
        cross join lateral (
          select org_id, id from run
          where org_id = s.org_id and device_id = s.device_id and ${isPending}
            and due_at <= now() + case when s.is_ahead then ${sql.lit(aheadMsMax)} * interval '1 ms' else interval '0' end
          order by due_at limit s.slots
          for update skip locked
        ) r
      where s.kinds is null
    )`;

/** Unpinned runs, dealt out to workers. */
const unpinned = sql`
    free as materialized (
      select s.org_id, s.kinds, s.device_id, s.epoch, s.session_id,
        row_number() over (partition by s.org_id order by n - s.slots, s.device_id) as place
      from seated s
        join device d on d.org_id = s.org_id and d.id = s.device_id and d.is_worker
        cross join lateral generate_series(1, s.slots) n
      where s.kinds is not null
    ),
    -- Locked first and dealt out then: what another replica holds is passed over, and its place is not lost. Of each kind
    -- the oldest are looked at, so that what waits for kinds that nobody offers is not read past by every claim.
    waiting as materialized (
      select r.org_id, r.id, row_number() over (partition by r.org_id order by r.due_at, r.id) as place
      from (select org_id, kinds::jsonb as kinds, count(*) as slots from free group by org_id, kinds) f
        cross join lateral (
          select r.* from (
              select c.* from (select '' as kind union select jsonb_array_elements_text(f.kinds)) k
                cross join lateral (
                  select org_id, id, due_at from run
                  where org_id = f.org_id and device_id is null and agent_kind = k.kind and ${isPending} and due_at <= now()
                  order by due_at limit 2 * f.slots + ${heldElsewhereMax}
                ) c
              order by c.due_at
            ) c
            cross join lateral (
              select org_id, id, due_at from run
              where org_id = c.org_id and id = c.id and device_id is null and ${isPending}
              for update skip locked
            ) r
          limit f.slots
        ) r
    ),
    dealt as materialized (
      select w.org_id, w.id, f.device_id, f.epoch, f.session_id
      from waiting w join free f on f.org_id = w.org_id and f.place = w.place
    )`;

/**
 * Claims for each device at most `slots` of the pending runs pinned to it, and for each fleet
 * worker at most `slots` of the org's unpinned runs that ask for no agent kind or for a kind of the
 * worker; oldest due first. Only a device's current session, by epoch and id, claims anything;
 * pinned runs go to their device alone, and unpinned runs to workers alone (R4). Devices must be
 * distinct, and workers of one org offer the same kinds (see partsOf).
 *
 * An org's unpinned runs go to its workers in turn, to the worker with the most free slots first.
 */
export async function claim(db: Db, wants: readonly Want[]): Promise<ClaimedRun[]> {
  if (wants.length === 0) return [];
  const hasDevices = wants.some((want) => !want.kinds);
  const hasWorkers = wants.some((want) => want.kinds);
  const picks = [...(hasDevices ? [pinned] : []), ...(hasWorkers ? [unpinned] : [])];
  const picked = [...(hasDevices ? [sql`table pinned`] : []), ...(hasWorkers ? [sql`table dealt`] : [])];
  // Runs are dealt to workers by a join of two sets, whose size the planner has to know.
  const { rows } = await sql<ClaimedRun>`${hasWorkers ? sql`` : ofAnySize}
    with seated as materialized (
      select p.org_id, p.device_id, p.epoch, p.session_id, w.slots, w.kinds, w.is_ahead
      from ${inputOf(wants)}
        cross join lateral (
          select * from presence
          where org_id = w.org_id and device_id = w.device_id and epoch = w.epoch and session_id = w.session_id
            and disconnected_at is null
          -- Heartbeats pass this lock, a newer hello does not: it waits for our commit, or we leave the runs to it.
          for key share skip locked
        ) p
    ),
    ${sql.join(picks)},
    -- There are no more than slots; said so that the planner looks the runs up, and does not read all that live.
    picked as materialized (
      select * from (${sql.join(picked, sql` union all `)}) p limit ${wants.reduce((sum, want) => sum + want.slots, 0)}
    ),
    claimed as (
      update run r set status = 'claimed', attempt = r.attempt + 1, attempt_token = gen_random_uuid(),
        claimed_at = now(), claimed_epoch = c.epoch, claimed_session = c.session_id, device_id = c.device_id
      from picked c where r.org_id = c.org_id and r.id = c.id
      returning r.*
    )
    select c.org_id as "orgId", c.id as "runId", c.device_id as "deviceId", c.attempt_token as "attemptToken", c.attempt,
      c.agent_kind as "agentKind", c.notification, c.timeout_ms as "timeoutMs", c.source, c.due_at as "dueAt",
      (extract(epoch from clock_timestamp() - greatest(c.due_at, c.not_before)) * 1000)::float8 as "dueForMs",
      c.scheduled_for as "scheduledFor", c.window_start as "windowStart", c.window_end as "windowEnd",
      c.watcher_id as "watcherId", c.watcher_version as "watcherVersion", w.slug as "watcherSlug", ${assignmentColumns}
    from claimed c
      left join watcher w on w.org_id = c.org_id and w.id = c.watcher_id
      ${assignmentJoins({ runId: sql`c.id`, version: sql`c.watcher_version`, windowId: sql`w.last_window_id`, windowAt: sql`w.last_window_at` })}
    order by c.due_at
  `.execute(db);
  return rows;
}
