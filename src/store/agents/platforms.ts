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
import { Refusal, refuse } from "../../errors.ts";
import { excerpt } from "../../excerpt.ts";
import { isReference, type Keyring } from "../../secrets.ts";
import { shown } from "../people/changes.ts";
import { canonical } from "../pg/canonical.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Json, PlatformRow } from "../pg/schema.ts";
import { unnest } from "../pg/unnest.ts";
import * as events from "../work/events.ts";

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

/** What is wanted of a platform; see {@link upsertAll}. */
export type Wanted = {
  stableId: string;
  actor: string;
  values: PlatformValues;
  expectedVersion: number;
  /** The start that the caller has waited for. */
  waitedEpoch: number | undefined;
  isDryRun: boolean;
};

type Emit = (event: Omit<events.NewEvent, "orgId">) => void;

/** What a row is read from and written with. */
type Context = { orgId: string; keyring: Keyring; emit: Emit };

/** {@link upsertAll} for one; its refusal is thrown. */
export async function upsert(db: Db, options: Wanted & { orgId: string; keyring: Keyring }): Promise<Step> {
  const { orgId, keyring, ...wanted } = options;
  for (let attempt = 1; attempt <= insertAttemptsMax; attempt++) {
    const [step] = await upsertAll(db, { orgId, keyring, wanted: [wanted] });
    if (step instanceof Refusal) throw step;
    if (step !== "again") return step!;
  }
  return refuse("aborted", `others create and delete "${options.stableId}"; do it again`, {
    retryAfterMs: 50,
  });
}

/**
 * Makes the rows what is wanted, each with the event `platform.created` or `platform.updated`, unless a start is under
 * way; in one transaction, which no refusal of one of them undoes. Answers for each, in their order, what is to be done,
 * or why it was refused: `not_found` (agent), `already_exists` (another agent's), `failed_precondition` (another kind; or
 * the start of `waitedEpoch` failed and nothing else is wanted, with its reason), `aborted` (`expectedVersion`; or the
 * platform was stopped or deleted while the caller waited), `invalid_argument` (a secret to keep that is not there).
 * "again": somebody else created it meanwhile, or it stands earlier in the list.
 */
export function upsertAll(
  db: Db,
  options: { orgId: string; keyring: Keyring; wanted: readonly Wanted[] },
): Promise<(Step | Refusal | "again")[]> {
  const { orgId, keyring, wanted } = options;
  return transaction(db, async (tx) => {
    const collected: Omit<events.NewEvent, "orgId">[] = [];
    const context: Context = { orgId, keyring, emit: (event) => collected.push(event) };
    const agentIds = await lockAgents(tx, {
      orgId,
      agentIds: wanted.map(({ values }) => values.agentId),
    });
    const [asked, meant] = [wanted.filter((one) => one.isDryRun), wanted.filter((one) => !one.isDryRun)];
    const read = new Map([
      ...(await findAll(tx, { orgId, stableIds: asked.map(({ stableId }) => stableId) })),
    ]);
    const locked = await findAll(tx, {
      orgId,
      stableIds: meant.map(({ stableId }) => stableId),
      isLocked: true,
    });
    const answers: (Step | Refusal | "again")[] = [];
    const drafts = new Map<string, { index: number; one: Wanted; secrets: Record<string, string> }>();
    const seen = new Set<string>();
    for (const [index, one] of wanted.entries()) {
      try {
        if (!agentIds.has(one.values.agentId)) noAgent(one.values.agentId);
        if (!one.isDryRun && seen.has(one.stableId)) {
          answers[index] = "again";
          continue;
        }
        if (!one.isDryRun) seen.add(one.stableId);
        const current = (one.isDryRun ? read : locked).get(one.stableId);
        if (current) {
          answers[index] = await change(tx, current, { ...one, ...context });
          continue;
        }
        if (one.waitedEpoch !== undefined) gone(one.stableId);
        const secrets = sealNew(context, one);
        if (one.isDryRun) answers[index] = created(draftOf({ orgId, ...one, secrets }));
        else drafts.set(one.stableId, { index, one, secrets });
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        answers[index] = error;
      }
    }
    const inserted = await insertAll(tx, orgId, [...drafts.values()]);
    for (const [stableId, { index, one, secrets }] of drafts) {
      const platform = inserted.get(stableId);
      answers[index] = platform ? created(platform) : "again";
      if (platform) collected.push(createdEvent(platform, one, secrets));
    }
    await events.append(tx, orgId, collected);
    return answers;
  });
}

function created(platform: Platform): Step {
  return { do: "start", platform, outcome: "created", willRestart: false, changed: [] };
}

/** Rows by stable id. Locked in one order, so that two batches cannot deadlock. */
async function findAll(
  tx: Db,
  options: { orgId: string; stableIds: readonly string[]; isLocked?: boolean },
): Promise<Map<string, Platform>> {
  if (options.stableIds.length === 0) return new Map();
  const query = select(tx, options.orgId)
    .where(sql<boolean>`stable_id = any(${options.stableIds}::text[])`)
    .orderBy("stable_id");
  const rows = await (options.isLocked ? query.forUpdate() : query).execute();
  return new Map(rows.map((row) => [row.stable_id, row]));
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

/** The secrets of a row that is not there yet. */
function sealNew(context: Context, one: Wanted): Record<string, string> {
  if (one.expectedVersion !== 0) {
    refuse("aborted", `there is no platform "${one.stableId}" yet; read it again`, { retryAfterMs: 0 });
  }
  return sealAll({ ...context, ...one }, undefined);
}

/** New rows, started by the caller; without those that are there by now, whose writers were waited for. */
async function insertAll(
  tx: Db,
  orgId: string,
  drafts: readonly { one: Wanted; secrets: Record<string, string> }[],
): Promise<Map<string, Platform>> {
  if (drafts.length === 0) return new Map();
  // In the order in which rows are locked too.
  const sorted = drafts.toSorted((a, b) => (a.one.stableId < b.one.stableId ? -1 : 1));
  const input = unnest("i", sorted, {
    stable_id: ["text", ({ one }) => one.stableId],
    agent_id: ["text", ({ one }) => one.values.agentId],
    kind: ["text", ({ one }) => one.values.kind],
    config: ["jsonb", ({ one }) => JSON.stringify(one.values.config)],
    secrets: ["jsonb", ({ secrets }) => JSON.stringify(secrets)],
  });
  const { rows } = await sql<Platform>`
    insert into platform (org_id, stable_id, agent_id, kind, config, secrets, status, epoch, start_deadline_at)
    select ${orgId}, stable_id, agent_id, kind, config, secrets, 'starting',
      (extract(epoch from clock_timestamp()) * 1000)::bigint, ${deadline}
    from ${input} order by ord
    on conflict do nothing
    returning org_id, stable_id, agent_id, kind, config, secrets, version, epoch, created_at, updated_at, status,
      status_reason`.execute(tx);
  return new Map(rows.map((row) => [row.stable_id, row]));
}

function createdEvent(platform: Platform, one: Wanted, secrets: Record<string, string>) {
  return {
    kind: "platform.created",
    actor: one.actor,
    data: {
      ...named(platform),
      kind: one.values.kind,
      version: 1,
      config: shortened(one.values.config),
      secrets: masked(secrets),
    },
  };
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
async function change(tx: Db, current: Platform, options: Wanted & Context): Promise<Step> {
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
    const platform = await beginStart(tx, current, options);
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
  options.emit({
    kind: "platform.updated",
    actor: options.actor,
    data: {
      ...named(platform),
      version: platform.version,
      changed,
      changes: Object.fromEntries(
        changed.map((field) => [field, { from: shownOf(current, field), to: shownOf(after, field) }]),
      ),
      config: shortened(only(values.config, changed, "config.")),
      secrets: masked(only(secrets, changed, "secrets.")),
      will_restart: starts && isRunning,
    },
  });
  return starts
    ? { do: "start", platform, willRestart: isRunning, ...answer }
    : { do: "nothing", platform, ...answer };
}

/** "config.a" or "secrets.b" of a platform as an event may show it: a secret only as one that is there. */
function shownOf(platform: Pick<Platform, "config" | "secrets">, field: string): unknown {
  const [, part, key] = /^(config|secrets)\.(.*)$/s.exec(field)!;
  const values = part === "config" ? platform.config : masked(platform.secrets);
  return shown(field, Object.hasOwn(values, key!) ? values[key!] : undefined);
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

/** Within the transaction that locked the row; the event `platform.starting` is the caller's to append. */
async function beginStart(
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
  const platform = (await find(tx, { orgId, stableId }))!;
  emit({ kind: "platform.starting", actor, data: named(platform) });
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
    const collected: Omit<events.NewEvent, "orgId">[] = [];
    const emit: Emit = (event) => collected.push(event);
    const platform = await beginStart(tx, current, { actor: options.actor, emit });
    await events.append(tx, options.orgId, collected);
    return { do: "start", platform, outcome: "noop", willRestart: false, changed: [] };
  });
}

/** How a start ended; without a failure it runs. */
export type StartEnd = { stableId: string; epoch: number; actor: string; failure: string | undefined };

/** {@link endStarts} for one. */
export async function endStart(db: Db, options: StartEnd & { orgId: string }): Promise<Platform | undefined> {
  const { orgId, ...end } = options;
  return (await endStarts(db, { orgId, ends: [end] }))[0];
}

/**
 * Records how starts ended, each with the event `platform.started` or `platform.failed`, and returns the platforms, in
 * the order of the ends; undefined, and nothing changed, for one that another start, a stop or a deletion came before, or
 * whose deadline passed (P1, P2).
 */
export function endStarts(
  db: Db,
  options: { orgId: string; ends: readonly StartEnd[] },
): Promise<(Platform | undefined)[]> {
  const { orgId, ends } = options;
  return transaction(db, async (tx) => {
    // In the order in which upsertAll locks.
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

/** Holds the agents' rows until the commit, so that none is removed meanwhile; answers those that there are. */
async function lockAgents(
  tx: Db,
  options: { orgId: string; agentIds: readonly string[] },
): Promise<ReadonlySet<string>> {
  const rows = await tx
    .selectFrom("agent")
    .select("id")
    .where("org_id", "=", options.orgId)
    .where(sql<boolean>`id = any(${[...new Set(options.agentIds)]}::text[])`)
    .orderBy("id")
    .forKeyShare()
    .execute();
  return new Set(rows.map(({ id }) => id));
}

function noAgent(agentId: string): never {
  refuse("not_found", `there is no agent "${agentId}"`, { field: "agent_id" });
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
