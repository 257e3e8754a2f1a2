/**
 * Starts: the inputs and origins of runs without a slot. A start has the id of its run,
 * also while the start waits for the end of the watcher's active run.
 */
import { type RawBuilder, sql } from "kysely";
import type { JsonValue } from "../../../values/json.ts";
import type { Db } from "../../pg/database.ts";
import { inCompany } from "../../pg/round-trips.ts";
import { storableJson } from "../../pg/values/storable.ts";
import { ofFew, unnest } from "../../pg/values/unnest.ts";
import type { StartSource, WatcherName } from "../watchers/schedules.ts";

/** The cause of a run from outside of its watcher. */
export type Origin = {
  hookId: string | null;
  hookSlug: string;
  hookDeliveryId: string | null;
  afterRunId: string | null;
  afterWatcherSlug: string;
  depth: number;
};

export const noOrigin: Origin = {
  hookId: null,
  hookSlug: "",
  hookDeliveryId: null,
  afterRunId: null,
  afterWatcherSlug: "",
  depth: 0,
};

export type NewStart = WatcherName & {
  runId: string;
  actor: string;
  /** Undefined: no input, unlike an input of null. */
  input: JsonValue | undefined;
  origin: Origin;
  isRetry?: boolean;
};

/** Writes a start; false if the end of the same run has started the watcher before. */
export async function insert(tx: Db, start: NewStart): Promise<boolean> {
  const result = await insertOf(start).execute(tx);
  return Number(result.numAffectedRows ?? 0) > 0;
}

/** Writes the start of a new run with the next statement. */
export async function insertNew(tx: Db, start: NewStart): Promise<void> {
  await insertOf(start, inCompany).execute(tx);
}

function insertOf(start: NewStart, mark = sql``): RawBuilder<unknown> {
  const { origin } = start;
  return sql`${mark}
    insert into run_start (org_id, run_id, watcher_id, input, actor, hook_id, hook_slug, hook_delivery_id, after_run_id,
      after_watcher_slug, depth, is_retry)
    values (${start.orgId}, ${start.runId}, ${start.watcherId},
      ${start.input === undefined ? null : storableJson(start.input)}::jsonb, ${start.actor}, ${origin.hookId},
      ${origin.hookSlug}, ${origin.hookDeliveryId}, ${origin.afterRunId}, ${origin.afterWatcherSlug}, ${origin.depth},
      ${start.isRetry ?? false})
    on conflict do nothing`;
}

/** Those of the runs that are there, live or ended. */
export async function listThere(
  db: Db,
  runs: readonly { orgId: string; runId: string }[],
): Promise<Set<string>> {
  if (runs.length === 0) return new Set();
  const input = unnest("i", runs, { org_id: ["text", (r) => r.orgId], run_id: ["uuid", (r) => r.runId] });
  const { rows } = await sql<{ id: string }>`
    select r.id from ${input} join run_all r on r.org_id = i.org_id and r.id = i.run_id`.execute(db);
  return new Set(rows.map(({ id }) => id));
}

export type StartRow = { runId: string; input: JsonValue | undefined; origin: Origin };

const columns = sql`s.run_id as "runId", s.input, s.input is not null as "hasInput", s.hook_id as "hookId",
  s.hook_slug as "hookSlug", s.hook_delivery_id as "hookDeliveryId", s.after_run_id as "afterRunId",
  s.after_watcher_slug as "afterWatcherSlug", s.depth`;

type Read = Origin & { runId: string; input: JsonValue; hasInput: boolean };

function rowOf({ runId, input, hasInput, ...origin }: Read): StartRow {
  return { runId, input: hasInput ? input : undefined, origin };
}

/** The start of a run; undefined for a run of a slot, or without input and origin. */
export async function find(db: Db, run: { orgId: string; runId: string }): Promise<StartRow | undefined> {
  const { rows } = await sql<Read>`
    select ${columns} from run_start s where s.org_id = ${run.orgId} and s.run_id = ${run.runId}`.execute(db);
  return rows[0] && rowOf(rows[0]);
}

/**
 * The start as shown to people: with the paths to redact, from the watcher's versions then and now.
 */
export async function findShown(
  db: Db,
  run: { orgId: string; runId: string },
): Promise<(StartRow & { redact: string[] }) | undefined> {
  const { rows } = await sql<Read & { redact: string[] }>`${ofFew}
    select ${columns}, array(
      select distinct jsonb_array_elements_text(coalesce(v.agent_work->'redact', '[]'))
      from watcher_revision v
      where v.org_id = s.org_id and v.watcher_id = s.watcher_id and v.version in (
        (select w.version from watcher w where w.org_id = s.org_id and w.id = s.watcher_id),
        (select r.watcher_version from run_all r where r.org_id = s.org_id and r.id = s.run_id))
    ) as redact
    from run_start s where s.org_id = ${run.orgId} and s.run_id = ${run.runId}`.execute(db);
  if (!rows[0]) return undefined;
  const { redact, ...read } = rows[0];
  return { ...rowOf(read), redact };
}

/** The first of the given runs with an equal input; undefined for none. */
export async function findEqual(
  db: Db,
  options: { orgId: string; runIds: readonly string[]; input: JsonValue | undefined },
): Promise<string | undefined> {
  const { orgId, runIds, input } = options;
  if (runIds.length === 0) return undefined;
  const { rows } = await sql<{ runId: string }>`
    select i.run_id as "runId"
    from unnest(${runIds as string[]}::uuid[]) with ordinality i(run_id, ord)
      left join run_start s on s.org_id = ${orgId} and s.run_id = i.run_id
    where s.input is not distinct from ${input === undefined ? null : storableJson(input)}::jsonb
    order by i.ord limit 1`.execute(db);
  return rows[0]?.runId;
}

/** Starts that wait for the end of their watcher's active run, in order. */
export async function listWaiting(
  tx: Db,
  watcher: WatcherName,
): Promise<{ runId: string; source: StartSource; waitsSince: Date }[]> {
  const { rows } = await sql<{ runId: string; source: StartSource; waitsSince: Date }>`
    select run_id as "runId", source, scheduled_for as "waitsSince" from backlog
    where org_id = ${watcher.orgId} and watcher_id = ${watcher.watcherId} and run_id is not null
    order by scheduled_for`.execute(tx);
  return rows;
}

/** Maximum tries, one for each concurrent start of the watcher in the same millisecond. */
const waitAttemptsMax = 20;

/**
 * Adds a start to the queue. The watcher's row is locked by the caller, or the start follows all
 * visible starts.
 */
export async function wait(
  tx: Db,
  start: WatcherName & { runId: string; source: StartSource },
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    // Each start has its own time, in JavaScript's milliseconds.
    const result = await sql`
    insert into backlog (org_id, watcher_id, scheduled_for, source, run_id)
    select ${start.orgId}, ${start.watcherId}, greatest(date_trunc('milliseconds', clock_timestamp()),
        max(b.scheduled_for) + interval '1 ms'), ${start.source}, ${start.runId}
    from backlog b
    where b.org_id = ${start.orgId} and b.watcher_id = ${start.watcherId}
    on conflict do nothing`.execute(tx);
    // Another transaction may have taken the same moment.
    if (Number(result.numAffectedRows ?? 0) > 0) return;
    if (attempt >= waitAttemptsMax) throw new Error("no moment was free for a start that waits");
  }
}

/** A watcher's requirements on the input of its runs, in its current version. */
export type Asked = { prompt: string; redact: string[] };

export async function findAsked(db: Db, watcher: WatcherName): Promise<Asked | undefined> {
  const { rows } = await sql<Asked>`${ofFew}
    select v.prompt, array(select jsonb_array_elements_text(coalesce(v.agent_work->'redact', '[]'))) as redact
    from watcher w join watcher_revision v on v.org_id = w.org_id and v.watcher_id = w.id and v.version = w.version
    where w.org_id = ${watcher.orgId} and w.id = ${watcher.watcherId}`.execute(db);
  return rows[0];
}

/** The run of a waiting start; undefined for any other id. */
export async function findWaiting(
  db: Db,
  run: { orgId: string; runId: string },
): Promise<{ watcherSlug: string; activeRunId: string | null } | undefined> {
  const { rows } = await sql<{ watcherSlug: string; activeRunId: string | null }>`
    select w.slug as "watcherSlug",
      (select r.id from run r where r.org_id = w.org_id and r.watcher_id = w.id) as "activeRunId"
    from run_start s
      join backlog b on b.org_id = s.org_id and b.watcher_id = s.watcher_id and b.run_id = s.run_id
      join watcher w on w.org_id = b.org_id and w.id = b.watcher_id
    where s.org_id = ${run.orgId} and s.run_id = ${run.runId}`.execute(db);
  return rows[0];
}

export type ChainRun = {
  runId: string;
  watcherId: string;
  watcherSlug: string | null;
  status: string;
  depth: number;
};

/**
 * A run's chain: earlier runs, the run itself, and runs started by its end, in order. Empty for a
 * run outside of a chain.
 */
export async function listChain(db: Db, run: { orgId: string; runId: string }): Promise<ChainRun[]> {
  const { rows } = await sql<ChainRun>`
    with recursive before(run_id, after_run_id, place) as (
      select s.run_id, s.after_run_id, 0 from run_start s where s.org_id = ${run.orgId} and s.run_id = ${run.runId}
      union all
      select b.after_run_id, s.after_run_id, b.place + 1
      from before b left join run_start s on s.org_id = ${run.orgId} and s.run_id = b.after_run_id
      where b.after_run_id is not null and b.place < 20
    ),
    runs(run_id, depth) as (
      select run_id, (select max(place) from before) - place from before
      union
      select ${run.runId}::uuid, coalesce((select max(place) from before), 0)
      union
      select s.run_id, coalesce((select max(place) from before), 0) + 1 from (
        -- Each part has an index of its own.
        select run_id from run_start where org_id = ${run.orgId} and after_run_id = ${run.runId} and not is_retry
        union all
        select run_id from run_start where org_id = ${run.orgId} and after_run_id = ${run.runId} and is_retry
      ) s
    )
    select c.run_id as "runId", r.watcher_id as "watcherId", w.slug as "watcherSlug", r.status, c.depth
    from runs c join run_all r on r.org_id = ${run.orgId} and r.id = c.run_id
      left join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
    where (select count(*) from runs) > 1
    order by c.depth, c.run_id`.execute(db);
  return rows;
}

export type Follower = WatcherName & {
  slug: string;
  /** The followed watcher, and the condition on its runs. */
  afterId: string;
  condition: string;
  /**
   * The actor of the watcher's last edit or resume, who must be allowed to read the followed runs.
   */
  sponsor: string;
};

/** The watchers started by the ends of the given watchers' runs. */
export async function listFollowers(db: Db, watchers: readonly WatcherName[]): Promise<Follower[]> {
  if (watchers.length === 0) return [];
  const input = unnest("i", watchers, {
    org_id: ["text", (w) => w.orgId],
    watcher_id: ["uuid", (w) => w.watcherId],
  });
  const { rows } = await sql<Follower>`
    select a.org_id as "orgId", a.watcher_id as "watcherId", w.slug, a.after_id as "afterId",
      coalesce(v.agent_work->>'afterCondition', '') as condition, w.sponsor
    from (select distinct org_id, watcher_id from ${input}) i
      join watcher_after a on a.org_id = i.org_id and a.after_id = i.watcher_id
      join watcher w on w.org_id = a.org_id and w.id = a.watcher_id
      join watcher_revision v on v.org_id = w.org_id and v.watcher_id = w.id and v.version = w.version
    order by a.org_id, a.watcher_id`.execute(db);
  return rows;
}

/** The facts about runs that a condition sees beside the results. */
export type EndedRun = {
  orgId: string;
  runId: string;
  watcherSlug: string | null;
  source: string;
  depth: number;
  finishedAt: Date;
};

export async function findEnded(
  db: Db,
  runs: readonly { orgId: string; runId: string }[],
): Promise<EndedRun[]> {
  const input = unnest("i", runs, { org_id: ["text", (r) => r.orgId], run_id: ["uuid", (r) => r.runId] });
  const { rows } = await sql<EndedRun>`
    select r.org_id as "orgId", r.id as "runId", w.slug as "watcherSlug", r.source, coalesce(s.depth, 0) as depth,
      r.finished_at as "finishedAt"
    from ${input} join run_finished r on r.org_id = i.org_id and r.id = i.run_id
      left join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
      left join run_start s on s.org_id = r.org_id and s.run_id = r.id`.execute(db);
  return rows;
}

/** Locks the given watchers that are free, by name in order; returns their ids. Never waits. */
export async function lockFree(tx: Db, watchers: readonly WatcherName[]): Promise<Set<string>> {
  const input = unnest("i", watchers, {
    org_id: ["text", (w) => w.orgId],
    watcher_id: ["uuid", (w) => w.watcherId],
  });
  const { rows } = await sql<{ id: string }>`
    select w.id from (select distinct org_id, watcher_id from ${input} order by 1, 2) i
      cross join lateral (
        select id from watcher where org_id = i.org_id and id = i.watcher_id for no key update skip locked
      ) w`.execute(tx);
  return new Set(rows.map(({ id }) => id));
}
