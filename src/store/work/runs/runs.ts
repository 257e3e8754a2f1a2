import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { type Look, looksAlone } from "../../pg/looks.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import { ofFew } from "../../pg/values/unnest.ts";
import type { FinishedStatus, SkipReason } from "../attempts/settlements.ts";
import { isAhead } from "./live-runs.ts";
import { devicesWith, dueWithin, endedSince, isOnDeviceWith, isOneOf } from "./run-filters.ts";

/** Runs for readers, and requests to end runs. */

export type RunRow = {
  orgId: string;
  id: string;
  watcherId: string;
  watcherSlug: string | null;
  watcherVersion: number;
  agentId: string;
  agentVersion: number;
  deviceId: string | null;
  agentKind: string;
  notification: "none" | "on_failure" | "always";
  source: "scheduled" | "manual" | "backfill" | "hook" | "after";
  scheduledFor: Date | null;
  windowStart: Date;
  windowEnd: Date;
  dueAt: Date;
  createdAt: Date;
  startDeadlineAt: Date | null;
  timeoutMs: number;
  maxAttempts: number;
  retryOf: string | null;
  status: "pending" | "claimed" | "running" | FinishedStatus;
  attempt: number;
  notBefore: Date | null;
  claimedAt: Date | null;
  pushedAt: Date | null;
  startedAt: Date | null;
  lastBeatAt: Date | null;
  cancelRequestedAt: Date | null;
  reason: string;
  pastAttempts: {
    attempt: number;
    claimed_at: string;
    ended_at: string;
    last_beat_at: string | null;
    reason: string;
    is_reported: boolean;
    device_id?: string | null;
    output_tail?: string;
  }[];
  finishedAt: Date | null;
  skipReason: SkipReason | null;
  exitCode: number | null;
  signal: string;
  durationMs: number | null;
  outputTail: string;
  windowId: string | null;
  /** The device reported the end. */
  isReported: boolean;
  /** The workspace in the watcher's or agent's version; empty: none. */
  workspace: string;
};

const columns = sql`
  r.org_id as "orgId", r.id, r.watcher_id as "watcherId", w.slug as "watcherSlug",
  r.watcher_version as "watcherVersion", r.agent_id as "agentId", r.agent_version as "agentVersion",
  r.device_id as "deviceId", r.agent_kind as "agentKind", r.notification, r.source, r.scheduled_for as "scheduledFor",
  r.window_start as "windowStart", r.window_end as "windowEnd", r.due_at as "dueAt", r.created_at as "createdAt",
  r.start_deadline_at as "startDeadlineAt", r.timeout_ms as "timeoutMs", r.max_attempts as "maxAttempts", r.retry_of as "retryOf",
  r.status, r.attempt, r.not_before as "notBefore", r.claimed_at as "claimedAt", r.pushed_at as "pushedAt",
  r.started_at as "startedAt", r.last_beat_at as "lastBeatAt", r.cancel_requested_at as "cancelRequestedAt", r.reason,
  r.past_attempts as "pastAttempts", r.finished_at as "finishedAt", r.skip_reason as "skipReason",
  r.exit_code as "exitCode", r.signal, r.duration_ms as "durationMs", r.output_tail as "outputTail",
  r.window_id as "windowId", r.is_reported as "isReported",
  -- As dispatched (server/device/messages/messages.ts): the watcher's, and where it names none, the
  -- agent's.
  coalesce(
    nullif((select v.agent_work->>'workspace' from watcher_revision v
      where v.org_id = r.org_id and v.watcher_id = r.watcher_id and v.version = r.watcher_version), ''),
    (select a.settings->>'workspace' from agent_revision a
      where a.org_id = r.org_id and a.agent_id = r.agent_id and a.version = r.agent_version),
    '') as workspace`;

/** A run of the org, live or ended. */
export async function find(db: Db, run: { orgId: string; runId: string }): Promise<RunRow | undefined> {
  const { rows } = await sql<RunRow>`${ofFew}
    select ${columns} from run_all r left join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
    where r.org_id = ${run.orgId} and r.id = ${run.runId}
  `.execute(db);
  return rows[0];
}

/** Runs of the org by id; runs that are not there are absent. */
export async function findAll(
  db: Db,
  { orgId, runIds }: { orgId: string; runIds: readonly string[] },
): Promise<Map<string, RunRow>> {
  if (runIds.length === 0) return new Map();
  const where = [sql`r.org_id = ${orgId}`, sql`r.id = any(${runIds as string[]}::uuid[])`];
  return new Map((await listWhere(db, where, runIds.length)).map((row) => [row.id, row]));
}

/** Which runs a list has. */
type RunsWanted = {
  orgId: string;
  beforeId?: string | undefined;
  watcherId?: string | undefined;
  deviceId?: string | undefined;
  statuses: readonly string[];
  /** Only runs whose agents gave reasons for attention. */
  wantsAttention?: boolean;
  /** Only runs with at least one of the reasons; empty: no filter. */
  attention?: readonly string[];
  /** Only runs on devices with all of these labels. */
  labels?: readonly string[];
  /** Only runs that were due at `since` or later, and before `until`. */
  since?: Date | undefined;
  until?: Date | undefined;
  limit: number;
};

/** Runs of the org, newest first, from before `beforeId`. */
export async function list(db: Db, wanted: RunsWanted): Promise<RunRow[]> {
  const { orgId, labels = [], limit } = wanted;
  const where = conditionsOf(wanted);
  if (labels.length === 0) return listWhere(db, where, limit, notedBefore(wanted), wanted.since);
  const onThem = [...where, isOnDeviceWith(labels)];
  if (isOfFew(wanted)) return listWhere(db, onThem, limit, notedBefore(wanted));
  const deviceIds = await devicesWith(db, { orgId, labels });
  if (deviceIds.length <= devicesAskedMax) return listOfDevices(db, deviceIds, where, limit);
  // Many devices: their runs are probably among the newest. Older runs are asked for by device.
  const oldest = await findNth(db, where, walkedMax);
  if (oldest === undefined) return listWhere(db, onThem, limit);
  const newest = await listWhere(db, [...onThem, sql`r.id >= ${oldest}`], limit);
  if (newest.length === limit) return newest;
  const older = [...where, sql`r.id < ${oldest}`];
  return [...newest, ...(await listOfDevices(db, deviceIds, older, limit - newest.length))];
}

/** Most devices whose runs are looked up device by device at once. */
const devicesAskedMax = 30;
/** Runs among which the runs of more devices are looked for first. */
const walkedMax = 5_000;

/** The id of the nth newest run. */
async function findNth(db: Db, where: RawBuilder<unknown>[], nth: number): Promise<string | undefined> {
  const { rows } = await sql<{ id: string }>`
    select r.id from run_all r where ${sql.join(where, sql` and `)} order by r.id desc offset ${nth} limit 1`.execute(
    db,
  );
  return rows[0]?.id;
}

async function listOfDevices(
  db: Db,
  deviceIds: readonly string[],
  where: RawBuilder<unknown>[],
  limit: number,
): Promise<RunRow[]> {
  if (deviceIds.length === 0) return [];
  const { rows } = await sql<RunRow>`
    select ${columns} from (
      select each.* from unnest(${deviceIds as string[]}::uuid[]) as d (id) cross join lateral (
        select r.* from run_all r where r.device_id = d.id and ${sql.join(where, sql` and `)} order by r.id desc limit ${limit}
      ) each order by each.id desc limit ${limit}
    ) r left join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
    order by r.id desc
  `.execute(db);
  return rows;
}

function conditionsOf(wanted: RunsWanted): RawBuilder<unknown>[] {
  const { orgId } = wanted;
  const where = [sql`r.org_id = ${orgId}`, ...dueWithin(wanted)];
  if (wanted.beforeId) where.push(sql`r.id < ${wanted.beforeId}`);
  if (wanted.watcherId) where.push(sql`r.watcher_id = ${wanted.watcherId}`);
  if (wanted.deviceId) where.push(sql`r.device_id = ${wanted.deviceId}`);
  if (wanted.statuses.length > 0) where.push(isOneOf(wanted.statuses));
  if (wanted.wantsAttention || wanted.attention?.length) {
    where.push(sql`r.id in (${isOfFew(wanted) ? sql`select run_id from noted` : notedRuns(wanted)})`);
  }
  return where;
}

/** Whether the list is of a few of the org's runs. */
const isOfFew = ({ watcherId, deviceId }: RunsWanted) => Boolean(watcherId || deviceId);

/** The runs whose agents gave one of the reasons, or any. */
function notedRuns({ orgId, attention = [] }: RunsWanted): RawBuilder<unknown> {
  const isOne = attention.length === 0 ? sql`` : sql`and attention && ${attention as string[]}::text[]`;
  // "attention <> '{}'" is the condition of the index.
  return sql`select run_id from run_report where org_id = ${orgId} and attention <> '{}' ${isOne}`;
}

/**
 * For a list of few runs the runs with reasons are read once, before: PostgreSQL would look for
 * each run into the reports of each day.
 */
const notedBefore = (wanted: RunsWanted) =>
  isOfFew(wanted) && (wanted.wantsAttention || wanted.attention?.length)
    ? sql`with noted as materialized (${notedRuns(wanted)})`
    : sql``;

/** Some of the conditions are those of `since`, if it is given. */
async function listWhere(
  db: Db,
  where: RawBuilder<unknown>[],
  limit: number,
  before: RawBuilder<unknown> = sql``,
  since?: Date,
): Promise<RunRow[]> {
  const found = since ? pagesSince(where, limit, since) : sql`run_all`;
  const { rows } = await sql<RunRow>`${before}
    select ${columns} from ${found} r left join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
    ${since ? sql`` : sql`where ${sql.join(where, sql` and `)}`}
    order by r.id desc
    limit ${limit}
  `.execute(db);
  return rows;
}

/**
 * A page of live runs and one of ended runs. Together their bound on the end has an alternative,
 * which no index takes: in the order of the page the whole day before `since` would be read.
 */
function pagesSince(where: RawBuilder<unknown>[], limit: number, since: Date): RawBuilder<unknown> {
  const page = (bound: RawBuilder<unknown>) => sql`(
    select r.* from run_all r where ${sql.join(where, sql` and `)} and ${bound} order by r.id desc limit ${limit})`;
  return sql`(${page(sql`r.finished_at is null`)} union all ${page(sql`r.finished_at >= ${endedSince(since)}`)})`;
}

/** The active run of a watcher. */
export async function findActive(
  db: Db,
  watcher: { orgId: string; watcherId: string },
): Promise<RunRow | undefined> {
  const { rows } = await sql<RunRow>`
    select ${columns} from run_all r left join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
    where r.org_id = ${watcher.orgId} and r.watcher_id = ${watcher.watcherId}
      and r.status in ('pending', 'claimed', 'running')
  `.execute(db);
  return rows[0];
}

export type LockedRun = {
  orgId: string;
  runId: string;
  status: "pending" | "claimed" | "running";
  attemptToken: string | null;
  deviceId: string | null;
  isPinned: boolean;
  /** Recorded before its due time, which is still ahead. */
  isAhead: boolean;
};

/**
 * Locks the live runs of a cancellation. `only`: those that are ahead and no others, because a
 * claim passes a locked run by, and then only the sweep finds the run.
 */
export async function lockForCancel(
  tx: Db,
  which: { orgId: string } & (
    | { runId: string }
    | { runIds: readonly string[] }
    | { watcherId: string }
    | { deviceId: string }
  ),
  { only }: { only?: "ahead" | undefined } = {},
): Promise<LockedRun[]> {
  const match =
    "runIds" in which
      ? sql`id = any(${which.runIds as string[]}::uuid[])`
      : "runId" in which
        ? sql`id = ${which.runId}`
        : "watcherId" in which
          ? sql`watcher_id = ${which.watcherId}`
          : sql`device_id = ${which.deviceId}`;
  const { rows } = await sql<LockedRun>`
    select org_id as "orgId", id as "runId", status, attempt_token as "attemptToken", device_id as "deviceId",
      is_pinned as "isPinned", ${isAhead} as "isAhead"
    from run where org_id = ${which.orgId} and ${match} ${only === "ahead" ? sql`and ${isAhead}` : sql``}
    order by org_id, id
    for update
  `.execute(tx);
  return rows;
}

/** Locks pending runs past their start deadline. Rows locked by other transactions are skipped. */
export async function lockExpired(
  tx: Db,
  limit: number,
): Promise<{ orgId: string; runId: string; now: Date }[]> {
  const { rows } = await sql<{ orgId: string; runId: string; now: Date }>`
    select org_id as "orgId", id as "runId", now() from run
    where start_deadline_at <= now() and status = 'pending'
    order by start_deadline_at
    limit ${limit}
    for update skip locked
  `.execute(tx);
  return rows;
}

/** Milliseconds until the next pending run expires, by the database's clock; undefined for none. */
export const nextExpiryMs: Look<number | undefined> = {
  expression: sql`
    select greatest(0, extract(epoch from start_deadline_at - clock_timestamp()) * 1000)::float8
    from run where start_deadline_at is not null and status = 'pending' order by start_deadline_at limit 1`,
  read: (ms) => (ms as number | null) ?? undefined,
};

export function findNextExpiryMs(db: Db): Promise<number | undefined> {
  return looksAlone(db).ask(nextExpiryMs);
}

/** Numbers of active and pending runs on a run's device, for ExplainRun. */
export async function countOnDevice(
  db: Db,
  device: { orgId: string; deviceId: string },
): Promise<{ active: number; pending: number }> {
  const { rows } = await sql<{ active: number; pending: number }>`
    select count(*) filter (where status <> 'pending') as active, count(*) filter (where status = 'pending') as pending
    from run where org_id = ${device.orgId} and device_id = ${device.deviceId}
  `.execute(db);
  return onlyRow(rows);
}
