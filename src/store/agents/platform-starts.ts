/**
 * Chat platforms of agents: the states of starts.
 *
 * A start happens outside of the database, on the replica whose call asked for it. Its row records
 * the start (`starting`, an epoch, and a deadline), so that of several calls one starts and the
 * others wait for its outcome:
 *
 * state    | equal upsert        | different upsert       | start    | stop    | outcome of epoch
 * absent   | starting, to caller | starting, to caller    | refused  | refused | dropped
 * starting | wait                | wait                   | wait     | stopped | running or failed
 * running  | stays               | starting, to caller    | stays    | stopped | dropped
 * failed   | starting, to caller | starting, to caller    | starting | stopped | dropped
 * stopped  | stays               | stays, with new values | starting | stays   | dropped
 *
 * - P1 An outcome is written only under the epoch of its own start, so a late outcome changes
 *   nothing.
 * - P2 `starting` beyond its deadline reads as `failed`: its replica is gone.
 * - P3 Epochs of a stable id only grow, also across a deletion, so that a stop "up to an epoch"
 *   ends no later start.
 * - P4 A call that waited for a start and finds the platform stopped is refused, and so is the call
 *   that made the start: neither undoes the stop.
 */
import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import { unnest } from "../pg/values/unnest.ts";
import * as events from "../work/service/events.ts";
import { isOwn, type Lease } from "./platform-leases.ts";
import { deadline, find, lock, type Named, named, nextEpoch, notFound, type Platform } from "./platforms.ts";

export type Outcome = "created" | "updated" | "noop";

/** The next step for a platform after reading its row. */
export type Step =
  /** The caller makes the start of the epoch, and reports its end by {@link endStart}. */
  | { do: "start"; platform: Platform; outcome: Outcome; willRestart: boolean; changed: string[] }
  /** Another call's start is under way: wait for its end, and read the row again. */
  | { do: "wait"; platform: Platform }
  | { do: "nothing"; platform: Platform; outcome: Outcome; changed: string[] };

export type Emit = (event: Omit<events.NewEvent, "orgId">) => void;

/** P4 */
export function requireNoStop(current: Platform, waitedEpoch: number | undefined): void {
  if (waitedEpoch === undefined || current.status !== "stopped" || current.epoch === waitedEpoch) return;
  refuse("aborted", `the platform "${current.stable_id}" was stopped meanwhile; read it again`, {
    retryAfterMs: 0,
  });
}

export function gone(stableId: string): never {
  refuse("aborted", `the platform "${stableId}" was deleted meanwhile; do it again`, { retryAfterMs: 0 });
}

/** Within the transaction that locked the row; the caller appends the event `platform.starting`. */
export async function beginStart(
  tx: Db,
  current: Platform,
  { actor, emit }: { actor: string; emit: Emit },
): Promise<Platform> {
  const { org_id: orgId, stable_id: stableId } = current;
  await tx
    .updateTable("platform")
    .set({ status: "starting", status_reason: "", epoch: nextEpoch, start_deadline_at: deadline })
    .where("org_id", "=", orgId)
    .where("stable_id", "=", stableId)
    .execute();
  const platform = (await find(tx, { orgId, stableId })) ?? notFound(stableId);
  emit({ kind: "platform.starting", actor, data: named(platform) });
  return platform;
}

/**
 * Begins a start unless the platform is running or starting. Refuses with `not_found`, with
 * `aborted` if the platform was stopped or deleted while the caller waited, and with
 * `failed_precondition` if the awaited start failed.
 */
export function start(
  db: Db,
  options: Named & { actor: string; waitedEpoch: number | undefined },
): Promise<Step> {
  return transaction(db, async (tx) => {
    const current = await lock(tx, options);
    if (!current) {
      if (options.waitedEpoch !== undefined) gone(options.stableId);
      notFound(options.stableId);
    }
    if (current.status === "starting") return { do: "wait", platform: current };
    requireNoStop(current, options.waitedEpoch);
    if (current.status === "running")
      return { do: "nothing", platform: current, outcome: "noop", changed: [] };
    if (current.status === "failed" && current.epoch === options.waitedEpoch) {
      refuse(
        "failed_precondition",
        `the platform "${current.stable_id}" did not start: ${current.status_reason}`,
      );
    }
    const collected: Omit<events.NewEvent, "orgId">[] = [];
    const emit: Emit = (event) => collected.push(event);
    const platform = await beginStart(tx, current, { actor: options.actor, emit });
    await events.append(tx, options.orgId, collected);
    return { do: "start", platform, outcome: "noop", willRestart: false, changed: [] };
  });
}

/** The end of a start; without a failure the platform runs. */
export type StartEnd = { stableId: string; epoch: number; actor: string; failure: string | undefined };

/** {@link endStarts} for a single start. */
export async function endStart(db: Db, options: StartEnd & { orgId: string }): Promise<Platform | undefined> {
  const { orgId, ...end } = options;
  return (await endStarts(db, { orgId, ends: [end] }))[0];
}

/**
 * Records the ends of starts, each with the event `platform.started` or `platform.failed`, and
 * returns the platforms in the order of the ends; undefined, without a change, for a start
 * overtaken by another start, a stop or a deletion, or past its deadline (P1, P2).
 */
export function endStarts(
  db: Db,
  options: { orgId: string; ends: readonly StartEnd[] },
): Promise<(Platform | undefined)[]> {
  const { orgId, ends } = options;
  return transaction(db, async (tx) => {
    // In the locking order of upsertAll.
    await sql`
      select from platform where org_id = ${orgId} and stable_id = any(${ends.map(({ stableId }) => stableId)}::text[])
      order by stable_id for update`.execute(tx);
    const input = unnest("i", ends, {
      stable_id: ["text", (end) => end.stableId],
      epoch: ["bigint", (end) => end.epoch],
      failure: ["text", (end) => end.failure ?? null],
    });
    const { rows } = await sql<Platform>`
      update platform p set
        status = case when i.failure is null then 'running' else 'failed' end,
        status_reason = coalesce(i.failure, ''), start_deadline_at = null
      from ${input}
      where p.org_id = ${orgId} and p.stable_id = i.stable_id and p.epoch = i.epoch
        and p.status = 'starting' and p.start_deadline_at >= clock_timestamp()
      returning p.org_id, p.stable_id, p.agent_id, p.kind, p.config, p.secrets, p.version, p.epoch, p.created_at,
        p.updated_at, p.status, p.status_reason`.execute(tx);
    const ended = new Map(rows.map((row) => [row.stable_id, row]));
    const platforms = ends.map(({ stableId, epoch }) => {
      const platform = ended.get(stableId);
      return platform?.epoch === epoch ? platform : undefined;
    });
    await events.append(
      tx,
      orgId,
      ends.flatMap(({ actor, failure }, index) => {
        const platform = platforms[index];
        if (!platform) return [];
        const data = { ...named(platform), version: platform.version };
        return failure === undefined
          ? [{ kind: "platform.started", actor, data }]
          : [{ kind: "platform.failed", actor, data: { ...data, reason: failure } }];
      }),
    );
    return platforms;
  });
}

/**
 * Marks a platform as stopped, with the event `platform.stopped`; a start under way is overtaken.
 * Refuses with `not_found`.
 */
export function stop(
  db: Db,
  options: Named & { actor: string },
): Promise<{ platform: Platform; isChanged: boolean }> {
  const { orgId, stableId } = options;
  return transaction(db, async (tx) => {
    const current = (await lock(tx, options)) ?? notFound(stableId);
    if (current.status === "stopped") return { platform: current, isChanged: false };
    await tx
      .updateTable("platform")
      .set({ status: "stopped", status_reason: "", start_deadline_at: null, epoch: nextEpoch })
      .where("org_id", "=", orgId)
      .where("stable_id", "=", stableId)
      .execute();
    const platform = (await find(tx, options)) ?? notFound(stableId);
    await events.append(tx, orgId, [
      { kind: "platform.stopped", actor: options.actor, data: named(platform) },
    ]);
    return { platform, isChanged: true };
  });
}

/**
 * A running platform that refuses its bot on a replica that takes over: marks the platform as
 * failed, with the event `platform.failed`, under the lease's epoch. False: overtaken.
 */
export function fail(db: Db, options: Lease & { startEpoch: number; reason: string }): Promise<boolean> {
  const { orgId, stableId, startEpoch, reason } = options;
  return transaction(db, async (tx) => {
    const { rows } = await sql<Platform>`
      update platform set status = 'failed', status_reason = ${reason}
      where org_id = ${orgId} and stable_id = ${stableId} and epoch = ${startEpoch} and status = 'running'
        and ${isOwn(options)}
      returning stable_id, agent_id, version`.execute(tx);
    if (!rows[0]) return false;
    const data = { ...named(rows[0]), version: rows[0].version, reason };
    await events.append(tx, orgId, [{ kind: "platform.failed", actor: "pinion", data }]);
    return true;
  });
}
