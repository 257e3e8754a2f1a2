/** The tables of replicas, agents and work. */
import type { ColumnType, Generated, Selectable } from "kysely";
import type {
  GeneratedJsonArray,
  GeneratedJsonObject,
  GeneratedTimestamp,
  Json,
  JsonArray,
  JsonObject,
  OrNull,
  Timestamp,
  TimestampOrNull,
} from "./schema-columns.ts";

export type Overlap = "skip" | "queue_one" | "queue_all";
export type Catchup = "collapse" | "miss";
export type Notification = "none" | "on_failure" | "always";
export type WatcherStatus = "active" | "paused" | "no_executor";
export type PlatformStatus = "stopped" | "starting" | "running" | "failed";
export type RunSource = "scheduled" | "manual" | "backfill" | "hook" | "after";
export type ActiveRunStatus = "pending" | "claimed" | "running";
export type FinishedRunStatus = "completed" | "failed" | "timeout" | "cancelled" | "skipped";
export type SkipReason =
  | "overlap"
  | "cooldown"
  | "missed"
  | "offline_expired"
  | "no_executor"
  | "limit"
  | "budget";

/**
 * An attempt that did not end its run, as stored in `past_attempts`, oldest first. Times are ISO
 * 8601.
 */
export type PastAttempt = {
  attempt: number;
  token: string;
  /** Absent in entries from before there were fleet workers: where the run was pinned to. */
  device_id?: string;
  claimed_at: string | null;
  ended_at: string;
  last_beat_at: string | null;
  reason: string;
  is_reported: boolean;
  /** The end of the program's output; absent in entries of attempts that Pinion took away. */
  output_tail?: string;
};

export type ReplicaTable = {
  id: string;
  address: string;
  started_at: GeneratedTimestamp;
  last_beat_at: GeneratedTimestamp;
};

export type PresenceTable = {
  org_id: string;
  device_id: string;
  epoch: Generated<number>;
  session_id: Generated<string>;
  replica_id: OrNull<string>;
  connected_at: TimestampOrNull;
  disconnected_at: TimestampOrNull;
  last_beat_at: TimestampOrNull;
};

export type AgentTable = {
  org_id: string;
  id: string;
  name: string;
  owner_id: OrNull<string>;
  version: Generated<number>;
  created_at: GeneratedTimestamp;
  updated_at: GeneratedTimestamp;
  device_id: OrNull<string>;
  no_executor_reason: Generated<string>;
};

export type PlatformTable = {
  org_id: string;
  stable_id: string;
  agent_id: string;
  kind: string;
  config: JsonObject<Record<string, string>>;
  /** By key: sealed, or a reference. */
  secrets: JsonObject<Record<string, string>>;
  /** See secret-marks.ts. */
  secret_marks: ColumnType<unknown, string | undefined, string>;
  version: Generated<number>;
  status: PlatformStatus;
  status_reason: ColumnType<string, string | undefined, string>;
  epoch: Generated<number>;
  start_deadline_at: TimestampOrNull;
  created_at: GeneratedTimestamp;
  updated_at: GeneratedTimestamp;
};

export type AgentRevisionTable = {
  org_id: string;
  agent_id: string;
  version: number;
  name: string;
  settings: JsonObject<Json>;
};

export type WatcherTable = {
  org_id: string;
  id: Generated<string>;
  slug: string;
  version: Generated<number>;
  name: string;
  agent_id: string;
  device_id: OrNull<string>;
  agent_kind: Generated<string>;
  schedule: OrNull<string>;
  time_zone: Generated<string>;
  overlap: Generated<Overlap>;
  catchup: Generated<Catchup>;
  catchup_window_ms: Generated<number>;
  jitter_ms: Generated<number>;
  min_cooldown_ms: Generated<number>;
  start_deadline_ms: OrNull<number>;
  timeout_ms: Generated<number>;
  max_attempts: Generated<number>;
  notification: Generated<Notification>;
  day_budget: ColumnType<Json | null, string | null | undefined, string | null>;
  notify: ColumnType<Json[] | null, string | null | undefined, string | null>;
  placement: ColumnType<Json | null, string | null | undefined, string | null>;
  workspace: OrNull<string>;
  status: Generated<WatcherStatus>;
  paused_reason: Generated<string>;
  last_fired_at: TimestampOrNull;
  window_cursor_at: TimestampOrNull;
  last_window_id: OrNull<string>;
  /** The end of the window's run. */
  last_window_at: TimestampOrNull;
  consecutive_failures: Generated<number>;
  backoff_until: TimestampOrNull;
  created_at: GeneratedTimestamp;
  updated_at: GeneratedTimestamp;
  sponsor: Generated<string>;
};

/** The position of a watcher's schedule; each watcher has one. */
export type SchedulePositionTable = {
  org_id: string;
  watcher_id: string;
  next_slot_at: TimestampOrNull;
  /** The slot plus the jitter. */
  next_due_at: TimestampOrNull;
  /** The latest slot with a row. */
  last_slot_at: TimestampOrNull;
  last_run_at: TimestampOrNull;
  /** Slots skipped for want of an executor since the last run. */
  unrunnable_slots: Generated<number>;
};

export type WatcherRevisionTable = {
  org_id: string;
  watcher_id: string;
  version: number;
  name: string;
  prompt: string;
  extraction_schema: ColumnType<Json | null, Json | string | null | undefined, Json | string | null>;
  agent_work: ColumnType<Json, Json | string | undefined, Json | string>;
};

export type BacklogTable = {
  org_id: string;
  watcher_id: string;
  scheduled_for: Timestamp;
  source: RunSource;
  /** The run of a start that waits; null for a slot. */
  run_id: OrNull<string>;
};

export type SlotTable = {
  org_id: string;
  watcher_id: string;
  scheduled_for: Timestamp;
  run_id: string;
  created_at: GeneratedTimestamp;
};

/** The columns that a live and an ended run share. */
type RunColumns = {
  org_id: string;
  watcher_id: string;
  watcher_version: number;
  agent_id: string;
  agent_version: number;
  device_id: OrNull<string>;
  agent_kind: string;
  notification: Notification;
  source: RunSource;
  scheduled_for: TimestampOrNull;
  window_start: Timestamp;
  window_end: Timestamp;
  due_at: Timestamp;
  start_deadline_at: TimestampOrNull;
  timeout_ms: number;
  max_attempts: number;
  retry_of: OrNull<string>;
  attempt_token: OrNull<string>;
  not_before: TimestampOrNull;
  claimed_at: TimestampOrNull;
  claimed_epoch: OrNull<number>;
  pushed_at: TimestampOrNull;
  started_at: TimestampOrNull;
  last_beat_at: TimestampOrNull;
  cancel_requested_at: TimestampOrNull;
  cancel_reason: OrNull<string>;
};

export type RunTable = RunColumns & {
  id: Generated<string>;
  created_at: GeneratedTimestamp;
  status: Generated<ActiveRunStatus>;
  attempt: Generated<number>;
  claimed_session: OrNull<string>;
  reason: Generated<string>;
  past_attempts: GeneratedJsonArray<PastAttempt>;
  deferrals: Generated<number>;
  is_pinned: boolean;
  is_gated: Generated<boolean>;
  is_held: Generated<boolean>;
  spread_to: OrNull<string>;
};

export type RunFinishedTable = RunColumns & {
  id: string;
  created_at: Timestamp;
  status: FinishedRunStatus;
  attempt: number;
  reason: string;
  past_attempts: JsonArray<PastAttempt>;
  finished_at: GeneratedTimestamp;
  skip_reason: OrNull<SkipReason>;
  is_reported: Generated<boolean>;
  exit_code: OrNull<number>;
  signal: Generated<string>;
  duration_ms: OrNull<number>;
  output_tail: Generated<string>;
  window_id: OrNull<string>;
  output: OrNull<string>;
  is_output_truncated: OrNull<boolean>;
  answer: ColumnType<Json | null, string | null | undefined, string | null>;
  stored_at: TimestampOrNull;
};

export type WindowTable = {
  org_id: string;
  id: Generated<string>;
  watcher_id: string;
  run_id: string;
  window_start: Timestamp;
  window_end: Timestamp;
  model_used: string;
  extracted_data: JsonObject<Json>;
  created_at: GeneratedTimestamp;
};

/** A view: every event by itself, also of packed rows (events.ts). */
export type EventTable = {
  org_id: string;
  /** Given by the database alone. */
  seq: ColumnType<number, never, never>;
  at: GeneratedTimestamp;
  kind: string;
  actor: string;
  run_id: OrNull<string>;
  watcher_id: OrNull<string>;
  device_id: OrNull<string>;
  data: GeneratedJsonObject<Json>;
  source: OrNull<EventSource>;
};

/** Events as stored: `seqs` and the arrays of ids belong to a packed row. */
export type EventRowTable = EventTable & {
  seqs: OrNull<number[]>;
  run_ids: OrNull<string[]>;
  watcher_ids: OrNull<string[]>;
  device_ids: OrNull<(string | null)[]>;
};

/** From where a call came; see sources.ts. */
export type EventSource = { address: string; token_id: string; user_agent: string; request_id: string };

export type PresenceRow = Selectable<PresenceTable>;
export type PlatformRow = Selectable<PlatformTable>;
export type WatcherRow = Selectable<WatcherTable>;
export type SchedulePositionRow = Selectable<SchedulePositionTable>;
