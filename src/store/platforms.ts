/**
 * Chat platforms of agents, and who starts them.
 *
 * A start happens outside of the database, on the replica whose call asked for it. Its row says that it is under way
 * (`starting`, an epoch, and a deadline), so that of several calls one starts and the others wait for its outcome:
 *
 * | state    | upsert, equal        | upsert, different       | start          | stop    | outcome of its epoch |
 * | absent   | starting, to caller  | starting, to caller     | refused        | refused | dropped              |
 * | starting | wait                 | wait                    | wait           | stopped | running or failed    |
 * | running  | stays                | starting, to caller     | stays          | stopped | dropped              |
 * | failed   | starting, to caller  | starting, to caller     | starting       | stopped | dropped              |
 * | stopped  | stays                | stays, with new values  | starting       | stays   | dropped              |
 *
 * - P1 An outcome is written only under the epoch of its own start, so a late one changes nothing.
 * - P2 `starting` beyond its deadline is read as `failed`: its replica is gone.
 * - P3 Epochs of one stable id only grow, also across a deletion, so that who stops "up to an epoch" ends no later start.
 * - P4 Who waited for a start and finds the platform stopped is refused, as who made that start is: neither undoes the stop.
 */
import { sql } from "kysely";
import { refuse } from "../errors.ts";
import { excerpt } from "../excerpt.ts";
import { isReference, type Keyring } from "../secrets.ts";
import { canonical } from "./canonical.ts";
import type { Db } from "./database.ts";
import { transaction } from "./database.ts";
import * as events from "./events.ts";
import type { Json, PlatformRow } from "./schema.ts";

/** A platform as it is read. A start that took too long shows as failed (P2). */
export type Platform = Omit<PlatformRow, "start_deadline_at">;

type Named = { orgId: string; stableId: string };

/** What a secret is to become; "keep": what it is. */
export type WantedSecret = { value: string } | "keep";

/** What people decide about a platform. */
export type PlatformValues = {
  agentId: string;
  kind: string;
  config: Record<string, string>;
  secrets: Record<string, WantedSecret>;
};

export type Outcome = "created" | "updated" | "noop";

/** What is to be done about a platform after a look at it. */
export type Step =
  /** The start of this epoch is the caller's, who reports its end by {@link endStart}. */
  | { do: "start"; platform: Platform; outcome: Outcome; willRestart: boolean; changed: string[] }
  /** Somebody else's start is under way: wait for its end, and look again. */
  | { do: "wait"; platform: Platform }
  | { do: "nothing"; platform: Platform; outcome: Outcome; changed: string[] };

/** A start whose replica died is given up after this; longer than a start may take. */
export const startDeadlineMs = 25_000;
const overdueReason = "the start did not end in time; the replica that made it may be gone";
/** An upsert that finds neither room nor a row has met a deletion. This often is no coincidence. */
const insertAttemptsMax = 3;
/** Of a config's value in an event. */
const eventValueLengthMax = 200;

function select(db: Db, orgId: string) {
  const isOverdue = sql<boolean>`(status = 'starting' and start_deadline_at < clock_timestamp())`;
  return db
    .selectFrom("platform")
    .select(["org_id", "stable_id", "agent_id", "kind", "config", "secrets", "version", "epoch"])
    .select(["created_at", "updated_at"])
    .select([
      sql<PlatformRow["status"]>`case when ${isOverdue} then 'failed' else status end`.as("status"),
      sql<string>`case when ${isOverdue} then ${overdueReason} else status_reason end`.as("status_reason"),
    ])
    .where("org_id", "=", orgId);
}

/** The platform, if the org has it. */
export function find(db: Db, options: Named): Promise<Platform | undefined> {
  return select(db, options.orgId).where("stable_id", "=", options.stableId).executeTakeFirst();
}

/** The org's platforms by stable id, at most `limit`: those after `afterId`, and those of an agent, where given. */
export function list(
  db: Db,
  options: {
    orgId: string;
    limit: number;
    afterId?: string | undefined;
    agentId?: string | undefined;
  },
): Promise<Platform[]> {
  let query = select(db, options.orgId).orderBy("stable_id").limit(options.limit);
  if (options.afterId !== undefined) query = query.where("stable_id", ">", options.afterId);
  if (options.agentId !== undefined) query = query.where("agent_id", "=", options.agentId);
  return query.execute();
}

/**
 * Makes the row what is wanted, with the event `platform.created` or `platform.updated`, unless a start is under way.
 * `waitedEpoch` is the start that the caller has waited for: if that one failed and nothing else is wanted, this refuses
 * with `failed_precondition` and its reason, and with `aborted` if the platform was stopped. Refuses with `not_found` (agent), `already_exists` (another agent's),
 * `failed_precondition` (another kind), `aborted` (`expectedVersion`), `invalid_argument` (a secret to keep that is
 * not there).
 */
export function upsert(
  db: Db,
  options: Named & {
    actor: string;
    values: PlatformValues;
    expectedVersion: number;
    waitedEpoch: number | undefined;
    isDryRun: boolean;
    keyring: Keyring;
  },
): Promise<Step> {
  return transaction(db, async (tx) => {
    await requireAgent(tx, { orgId: options.orgId, agentId: options.values.agentId });
    for (let attempt = 1; attempt <= insertAttemptsMax; attempt++) {
      const current = options.isDryRun ? await find(tx, options) : await lock(tx, options);
      if (current) return await change(tx, current, options);
      if (options.waitedEpoch !== undefined) gone(options.stableId);
      const created = await insert(tx, options);
      if (created)
        return { do: "start", platform: created, outcome: "created", willRestart: false, changed: [] };
    }
    return refuse("aborted", `others create and delete "${options.stableId}"; do it again`, {
      retryAfterMs: 50,
    });
  });
}

/** P4 */
function requireNoStop(current: Platform, waitedEpoch: number | undefined): void {
  if (waitedEpoch === undefined || current.status !== "stopped" || current.epoch === waitedEpoch) return;
  refuse("aborted", `the platform "${current.stable_id}" was stopped meanwhile; read it again`, {
    retryAfterMs: 0,
  });
}

function gone(stableId: string): never {
  refuse("aborted", `the platform "${stableId}" was deleted meanwhile; do it again`, { retryAfterMs: 0 });
}

/** A new row, started by the caller; undefined if there is one by now, whose writer was waited for. */
async function insert(
  tx: Db,
  options: Named & {
    actor: string;
    values: PlatformValues;
    expectedVersion: number;
    isDryRun: boolean;
    keyring: Keyring;
  },
): Promise<Platform | undefined> {
  const { orgId, stableId, values } = options;
  if (options.expectedVersion !== 0) {
    refuse("aborted", `there is no platform "${stableId}" yet; read it again`, { retryAfterMs: 0 });
  }
  const secrets = sealAll(options, undefined);
  if (options.isDryRun) return draftOf({ ...options, secrets });
  const inserted = await tx
    .insertInto("platform")
    .values({
      org_id: orgId,
      stable_id: stableId,
      agent_id: values.agentId,
      kind: values.kind,
      config: JSON.stringify(values.config),
      secrets: JSON.stringify(secrets),
      status: "starting",
      epoch: sql<number>`(extract(epoch from clock_timestamp()) * 1000)::bigint`,
      start_deadline_at: deadline,
    })
    .onConflict((conflict) => conflict.doNothing())
    .returning("stable_id")
    .executeTakeFirst();
  if (!inserted) return undefined;
  const platform = (await find(tx, options))!;
  await events.append(tx, orgId, [
    {
      kind: "platform.created",
      actor: options.actor,
      data: {
        ...named(platform),
        kind: values.kind,
        version: 1,
        config: shortened(values.config),
        secrets: masked(secrets),
      },
    },
  ]);
  return platform;
}

const deadline = sql<Date>`clock_timestamp() + ${startDeadlineMs} * interval '1 millisecond'`;
/** Grows, and stays ahead of the clock by which a new row would begin (P3). */
const nextEpoch = sql<number>`greatest(epoch + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint)`;

function draftOf(options: Named & { values: PlatformValues; secrets: Record<string, string> }): Platform {
  const now = new Date();
  return {
    org_id: options.orgId,
    stable_id: options.stableId,
    agent_id: options.values.agentId,
    kind: options.values.kind,
    config: options.values.config,
    secrets: options.secrets,
    version: 1,
    epoch: 0,
    status: "starting",
    status_reason: "",
    created_at: now,
    updated_at: now,
  };
}

/** What is to be done about a row that is there, and locked. */
async function change(
  tx: Db,
  current: Platform,
  options: Named & {
    actor: string;
    values: PlatformValues;
    expectedVersion: number;
    waitedEpoch: number | undefined;
    isDryRun: boolean;
    keyring: Keyring;
  },
): Promise<Step> {
  const { values } = options;
  if (current.agent_id !== values.agentId) {
    refuse(
      "already_exists",
      `the stable id "${current.stable_id}" is taken by a platform of the agent "${current.agent_id}"`,
      { field: "stable_id" },
    );
  }
  if (current.kind !== values.kind) {
    refuse(
      "failed_precondition",
      `"${current.stable_id}" is a ${current.kind} and stays one; delete it first, or choose another stable id`,
    );
  }
  const isStarting = current.status === "starting";
  if (isStarting && !options.isDryRun) return { do: "wait", platform: current };
  requireNoStop(current, options.waitedEpoch);
  if (options.expectedVersion !== 0 && options.expectedVersion !== current.version) {
    refuse(
      "aborted",
      `the platform is at version ${current.version}, not ${options.expectedVersion}; read it again`,
      { retryAfterMs: 0 },
    );
  }
  const secrets = sealAll(options, current);
  const changed = [
    ...changedKeys(current.config, values.config).map((key) => `config.${key}`),
    ...changedKeys(current.secrets, secrets).map((key) => `secrets.${key}`),
  ];
  const isRunning = isStarting || current.status === "running";
  const starts = current.status === "failed" || (isRunning && changed.length > 0);
  if (changed.length === 0) {
    if (!starts || options.isDryRun) return { do: "nothing", platform: current, outcome: "noop", changed };
    if (current.epoch === options.waitedEpoch) {
      refuse(
        "failed_precondition",
        `the platform "${current.stable_id}" did not start: ${current.status_reason}`,
      );
    }
    const platform = await beginStart(tx, current, options.actor);
    return { do: "start", platform, outcome: "noop", willRestart: false, changed };
  }
  const after = { ...current, config: values.config, secrets, version: current.version + 1 };
  const answer = { outcome: "updated" as const, changed };
  if (options.isDryRun) {
    return starts
      ? { do: "start", platform: after, willRestart: isRunning, ...answer }
      : { do: "nothing", platform: after, ...answer };
  }
  await tx
    .updateTable("platform")
    .set({
      config: JSON.stringify(values.config),
      secrets: JSON.stringify(secrets),
      version: after.version,
      updated_at: sql<Date>`now()`,
      ...(starts
        ? { status: "starting", status_reason: "", epoch: nextEpoch, start_deadline_at: deadline }
        : {}),
    })
    .where("org_id", "=", current.org_id)
    .where("stable_id", "=", current.stable_id)
    .execute();
  const platform = (await find(tx, options))!;
  await events.append(tx, current.org_id, [
    {
      kind: "platform.updated",
      actor: options.actor,
      data: {
        ...named(platform),
        version: platform.version,
        changed,
        config: shortened(only(values.config, changed, "config.")),
        secrets: masked(only(secrets, changed, "secrets.")),
        will_restart: starts && isRunning,
      },
    },
  ]);
  return starts
    ? { do: "start", platform, willRestart: isRunning, ...answer }
    : { do: "nothing", platform, ...answer };
}

/** The secrets as they are stored. One that is what it was stays sealed as it is, so that equal calls change nothing. */
function sealAll(
  options: Named & { values: PlatformValues; keyring: Keyring },
  current: Platform | undefined,
): Record<string, string> {
  const { orgId, stableId: platformId, values, keyring } = options;
  const stored = current?.secrets ?? {};
  const seal = (field: string, wanted: WantedSecret): string => {
    const before = Object.hasOwn(stored, field) ? stored[field] : undefined;
    if (wanted === "keep") {
      return (
        before ??
        refuse("invalid_argument", `secrets.${field}: there is none to keep`, { field: `secrets.${field}` })
      );
    }
    if (isReference(wanted.value)) return wanted.value;
    const place = { orgId, agentId: values.agentId, platformId, field };
    if (before !== undefined && !isReference(before)) {
      try {
        if (keyring.open(before, place) === wanted.value) return before;
      } catch {
        // Its key is lost: what is given now takes its place.
      }
    }
    return keyring.seal(wanted.value, place);
  };
  return Object.fromEntries(
    Object.entries(values.secrets).map(([field, wanted]) => [field, seal(field, wanted)]),
  );
}

function changedKeys(before: Record<string, string>, after: Record<string, string>): string[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((key) => canonical(before[key]) !== canonical(after[key]))
    .sort();
}

function only(values: Record<string, string>, changed: string[], prefix: string): Record<string, string> {
  return Object.fromEntries(Object.entries(values).filter(([key]) => changed.includes(prefix + key)));
}

function shortened(config: Record<string, string>): Json {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => [key, excerpt(value, eventValueLengthMax)]),
  );
}

/** That a secret was set is told, and nothing of what it is. */
function masked(secrets: Record<string, string>): Json {
  return Object.fromEntries(Object.keys(secrets).map((key) => [key, "***"]));
}

function named(platform: Pick<Platform, "stable_id" | "agent_id">): Json {
  return { platform_id: platform.stable_id, agent_id: platform.agent_id };
}

/** Within the transaction that locked the row; with the event `platform.starting`. */
async function beginStart(tx: Db, current: Platform, actor: string): Promise<Platform> {
  const { org_id: orgId, stable_id: stableId } = current;
  await tx
    .updateTable("platform")
    .set({ status: "starting", status_reason: "", epoch: nextEpoch, start_deadline_at: deadline })
    .where("org_id", "=", orgId)
    .where("stable_id", "=", stableId)
    .execute();
  const platform = (await find(tx, { orgId, stableId }))!;
  await events.append(tx, orgId, [{ kind: "platform.starting", actor, data: named(platform) }]);
  return platform;
}

/**
 * Begins a start unless the platform runs or is being started. Refuses with `not_found`, with `aborted` if it was
 * stopped or deleted while the caller waited, and with `failed_precondition` if the start failed that the caller waited for.
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
    const platform = await beginStart(tx, current, options.actor);
    return { do: "start", platform, outcome: "noop", willRestart: false, changed: [] };
  });
}

/**
 * Records how a start ended, with the event `platform.started` or `platform.failed`, and returns the platform; undefined,
 * and nothing changed, if another start, a stop or a deletion came in between, or the deadline passed (P1, P2).
 */
export function endStart(
  db: Db,
  options: Named & { epoch: number; actor: string; failure: string | undefined },
): Promise<Platform | undefined> {
  const { orgId, stableId, failure } = options;
  return transaction(db, async (tx) => {
    const { numUpdatedRows } = await tx
      .updateTable("platform")
      .set({
        status: failure === undefined ? "running" : "failed",
        status_reason: failure ?? "",
        start_deadline_at: null,
      })
      .where("org_id", "=", orgId)
      .where("stable_id", "=", stableId)
      .where("epoch", "=", options.epoch)
      .where("status", "=", "starting")
      .where("start_deadline_at", ">=", sql<Date>`clock_timestamp()`)
      .executeTakeFirst();
    if (numUpdatedRows === 0n) return undefined;
    const platform = (await find(tx, options))!;
    await events.append(tx, orgId, [
      {
        kind: failure === undefined ? "platform.started" : "platform.failed",
        actor: options.actor,
        data: {
          ...named(platform),
          version: platform.version,
          ...(failure === undefined ? {} : { reason: failure }),
        },
      },
    ]);
    return platform;
  });
}

/** Marks a platform as stopped, with the event `platform.stopped`; a start under way is overtaken. Refuses with `not_found`. */
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
    const platform = (await find(tx, options))!;
    await events.append(tx, orgId, [
      { kind: "platform.stopped", actor: options.actor, data: named(platform) },
    ]);
    return { platform, isChanged: true };
  });
}

/** Removes a platform, with the event `platform.deleted`, and returns it, to be stopped. Refuses with `not_found`. */
export function remove(db: Db, options: Named & { actor: string }): Promise<Platform> {
  return transaction(db, async (tx) => {
    const current = (await lock(tx, options)) ?? notFound(options.stableId);
    await tx
      .deleteFrom("platform")
      .where("org_id", "=", options.orgId)
      .where("stable_id", "=", options.stableId)
      .execute();
    await events.append(tx, options.orgId, [deletedEvent(current, options.actor)]);
    return current;
  });
}

/** Removes all platforms of an agent and returns them, to be stopped; the events are the caller's. */
export async function removeAllOfAgent(
  tx: Db,
  options: { orgId: string; agentId: string },
): Promise<Platform[]> {
  const found = await select(tx, options.orgId)
    .where("agent_id", "=", options.agentId)
    .orderBy("stable_id")
    .forUpdate()
    .execute();
  await tx
    .deleteFrom("platform")
    .where("org_id", "=", options.orgId)
    .where("agent_id", "=", options.agentId)
    .execute();
  return found;
}

export function deletedEvent(platform: Platform, actor: string): Omit<events.NewEvent, "orgId"> {
  return { kind: "platform.deleted", actor, data: { ...named(platform), kind: platform.kind } };
}

function notFound(stableId: string): never {
  refuse("not_found", `there is no platform "${stableId}"`);
}

function lock(tx: Db, options: Named): Promise<Platform | undefined> {
  return select(tx, options.orgId).where("stable_id", "=", options.stableId).forUpdate().executeTakeFirst();
}

/** Holds the agent's row until the commit, so that it is not removed meanwhile. Refuses with `not_found`. */
async function requireAgent(tx: Db, options: { orgId: string; agentId: string }): Promise<void> {
  const agent = await tx
    .selectFrom("agent")
    .select("id")
    .where("org_id", "=", options.orgId)
    .where("id", "=", options.agentId)
    .forKeyShare()
    .executeTakeFirst();
  if (!agent) refuse("not_found", `there is no agent "${options.agentId}"`, { field: "agent_id" });
}

/** Platforms per transaction of a rotation. */
const rotateBatchMax = 200;

/**
 * Seals with the current key what other keys sealed, of all orgs, in batches, with one event `secrets.rotated` for each
 * org of a batch. What cannot be opened is left and counted (R9). May run beside a serving replica and again after a
 * crash. For whoever has the keys and the database; no rpc leads here.
 */
export async function rotateSecrets(
  db: Db,
  keyring: Keyring,
): Promise<{ rotated: number; failed: { orgId: string; stableId: string; field: string }[] }> {
  let rotated = 0;
  const failed: { orgId: string; stableId: string; field: string }[] = [];
  let after: { orgId: string; stableId: string } | undefined = { orgId: "", stableId: "" };
  while (after) {
    const batch = await rotateBatch(db, keyring, after);
    rotated += batch.rotated;
    failed.push(...batch.failed);
    after = batch.last;
  }
  return { rotated, failed };
}

async function rotateBatch(db: Db, keyring: Keyring, after: { orgId: string; stableId: string }) {
  return transaction(db, async (tx) => {
    const rows = await tx
      .selectFrom("platform")
      .select(["org_id", "stable_id", "agent_id", "secrets"])
      .where(sql<boolean>`(org_id, stable_id) > (${after.orgId}, ${after.stableId})`)
      .orderBy("org_id")
      .orderBy("stable_id")
      .limit(rotateBatchMax)
      .forUpdate()
      .execute();
    const perOrg = new Map<string, number>();
    const failed: { orgId: string; stableId: string; field: string }[] = [];
    let rotated = 0;
    for (const row of rows) {
      const secrets = { ...row.secrets };
      let count = 0;
      for (const [field, stored] of Object.entries(secrets)) {
        if (isReference(stored) || !keyring.isOutdated(stored)) continue;
        const place = { orgId: row.org_id, agentId: row.agent_id, platformId: row.stable_id, field };
        try {
          secrets[field] = keyring.seal(keyring.open(stored, place), place);
          count++;
        } catch {
          failed.push({ orgId: row.org_id, stableId: row.stable_id, field });
        }
      }
      if (count === 0) continue;
      await tx
        .updateTable("platform")
        .set({ secrets: JSON.stringify(secrets) })
        .where("org_id", "=", row.org_id)
        .where("stable_id", "=", row.stable_id)
        .execute();
      rotated += count;
      perOrg.set(row.org_id, (perOrg.get(row.org_id) ?? 0) + count);
    }
    await events.appendAll(
      tx,
      [...perOrg].map(([orgId, count]) => ({
        orgId,
        kind: "secrets.rotated",
        actor: "pinion",
        data: { count, key_id: keyring.currentKeyId ?? "" },
      })),
    );
    const last = rows.at(-1);
    return {
      rotated,
      failed,
      last:
        rows.length < rotateBatchMax || !last ? undefined : { orgId: last.org_id, stableId: last.stable_id },
    };
  });
}
