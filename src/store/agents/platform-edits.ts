/** Edits of platforms by people, and the steps that follow. */
import { sql } from "kysely";
import { Refusal, refuse } from "../../errors.ts";
import type { Keyring } from "../../secrets.ts";
import { marksAfter } from "../people/orgs/secret-marks.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import { onlyRow } from "../pg/values/only-row.ts";
import { unnest } from "../pg/values/unnest.ts";
import * as events from "../work/service/events.ts";
import { changedKeys, createdEvent, updatedEvent } from "./platform-events.ts";
import { sealAll } from "./platform-secrets.ts";
import { beginStart, type Emit, gone, requireNoStop, type Step } from "./platform-starts.ts";
import {
  deadline,
  find,
  findAll,
  type Named,
  nextEpoch,
  type Platform,
  type PlatformValues,
} from "./platforms.ts";

/**
 * Maximum tries of an upsert that finds neither a free id nor a row, because of a concurrent
 * deletion.
 */
const insertAttemptsMax = 3;

/** A requested platform; see {@link upsertAll}. */
export type Wanted = {
  stableId: string;
  actor: string;
  values: PlatformValues;
  expectedVersion: number;
  /** The epoch of the start that the caller has waited for. */
  waitedEpoch: number | undefined;
  isDryRun: boolean;
};

/** The surroundings of reading and writing rows. */
type Context = { orgId: string; keyring: Keyring; emit: Emit };

/** {@link upsertAll} for a single platform; a refusal is thrown. */
export async function upsert(db: Db, options: Wanted & { orgId: string; keyring: Keyring }): Promise<Step> {
  const { orgId, keyring, ...wanted } = options;
  for (let attempt = 1; attempt <= insertAttemptsMax; attempt++) {
    const step = onlyRow(await upsertAll(db, { orgId, keyring, wanted: [wanted] }));
    if (step instanceof Refusal) throw step;
    if (step !== "again") return step;
  }
  return refuse("aborted", `others create and delete "${options.stableId}"; do it again`, {
    retryAfterMs: 50,
  });
}

/**
 * Writes the requested rows, each with the event `platform.created` or `platform.updated`, unless a
 * start is under way; in one transaction, and a refused row does not undo the others. Returns for
 * each, in order, the next step or the refusal: `not_found` (agent), `already_exists` (another
 * agent's), `failed_precondition` (another kind; or the start of `waitedEpoch` failed without a
 * further change, with its reason), `aborted` (`expectedVersion`; or the platform was stopped or
 * deleted while the caller waited), `invalid_argument` (a secret to keep that does not exist).
 * "again": another call created the platform meanwhile, or its id occurs earlier in the list.
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

/** The secrets of a new row. */
function sealNew(context: Context, one: Wanted): Record<string, string> {
  if (one.expectedVersion !== 0) {
    refuse("aborted", `there is no platform "${one.stableId}" yet; read it again`, { retryAfterMs: 0 });
  }
  return sealAll({ ...context, ...one }, undefined);
}

/**
 * Inserts new rows, started by the caller; leaves out rows inserted by concurrent writers, after
 * waiting for their commits.
 */
async function insertAll(
  tx: Db,
  orgId: string,
  drafts: readonly { one: Wanted; secrets: Record<string, string> }[],
): Promise<Map<string, Platform>> {
  if (drafts.length === 0) return new Map();
  // In the order in which rows are locked, too.
  const sorted = drafts.toSorted((a, b) => (a.one.stableId < b.one.stableId ? -1 : 1));
  const input = unnest("i", sorted, {
    stable_id: ["text", ({ one }) => one.stableId],
    agent_id: ["text", ({ one }) => one.values.agentId],
    kind: ["text", ({ one }) => one.values.kind],
    config: ["jsonb", ({ one }) => JSON.stringify(one.values.config)],
    secrets: ["jsonb", ({ secrets }) => JSON.stringify(secrets)],
  });
  const { rows } = await sql<Platform>`
    insert into platform (org_id, stable_id, agent_id, kind, config, secrets, secret_marks, status, epoch, start_deadline_at)
    select ${orgId}, stable_id, agent_id, kind, config, secrets,
      (select coalesce(jsonb_object_agg(name, jsonb_build_object('version', 1, 'set_at', now())), '{}')
        from jsonb_object_keys(secrets) name), 'starting',
      (extract(epoch from clock_timestamp()) * 1000)::bigint, ${deadline}
    from ${input} order by ord
    on conflict do nothing
    returning org_id, stable_id, agent_id, kind, config, secrets, version, epoch, created_at, updated_at, status,
      status_reason`.execute(tx);
  return new Map(rows.map((row) => [row.stable_id, row]));
}

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

/** The next step for an existing, locked row. */
async function change(tx: Db, current: Platform, options: Wanted & Context): Promise<Step> {
  const { values, isDryRun } = options;
  requireSame(current, values);
  const isStarting = current.status === "starting";
  if (isStarting && !isDryRun) return { do: "wait", platform: current };
  requireNoStop(current, options.waitedEpoch);
  requireVersion(current, options.expectedVersion);
  const secrets = sealAll(options, current);
  const changed = [
    ...changedKeys(current.config, values.config).map((key) => `config.${key}`),
    ...changedKeys(current.secrets, secrets).map((key) => `secrets.${key}`),
  ];
  const willRestart = isStarting || current.status === "running";
  const starts = current.status === "failed" || (willRestart && changed.length > 0);
  if (changed.length === 0) return startAgain(tx, current, { ...options, starts });
  const after = { ...current, config: values.config, secrets, version: current.version + 1 };
  const answer = { outcome: "updated" as const, changed };
  if (isDryRun) {
    return starts
      ? { do: "start", platform: after, willRestart, ...answer }
      : { do: "nothing", platform: after, ...answer };
  }
  const platform = await write(tx, { before: current, after, starts });
  options.emit(
    updatedEvent({ before: current, after: platform }, changed, options.actor, starts && willRestart),
  );
  return starts ? { do: "start", platform, willRestart, ...answer } : { do: "nothing", platform, ...answer };
}

/** Refuses another agent or another kind for a stable id. */
function requireSame(current: Platform, values: PlatformValues): void {
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
}

/** `expectedVersion` 0: any version. */
function requireVersion({ version }: Platform, expectedVersion: number): void {
  if (expectedVersion === 0 || expectedVersion === version) return;
  refuse("aborted", `the platform is at version ${version}, not ${expectedVersion}; read it again`, {
    retryAfterMs: 0,
  });
}

/** The step for unchanged values: a failed platform starts again, once for each request. */
async function startAgain(
  tx: Db,
  current: Platform,
  options: Wanted & Context & { starts: boolean },
): Promise<Step> {
  const changed: string[] = [];
  if (!options.starts || options.isDryRun)
    return { do: "nothing", platform: current, outcome: "noop", changed };
  if (current.epoch === options.waitedEpoch) {
    refuse(
      "failed_precondition",
      `the platform "${current.stable_id}" did not start: ${current.status_reason}`,
    );
  }
  const platform = await beginStart(tx, current, options);
  return { do: "start", platform, outcome: "noop", willRestart: false, changed };
}

async function write(
  tx: Db,
  { before, after, starts }: { before: Platform; after: Platform; starts: boolean },
): Promise<Platform> {
  await tx
    .updateTable("platform")
    .set({
      config: JSON.stringify(after.config),
      secrets: JSON.stringify(after.secrets),
      secret_marks: marksAfter(before.secrets, after.secrets, sql`secret_marks`),
      version: after.version,
      updated_at: sql<Date>`now()`,
      ...(starts
        ? { status: "starting", status_reason: "", epoch: nextEpoch, start_deadline_at: deadline }
        : {}),
    })
    .where("org_id", "=", before.org_id)
    .where("stable_id", "=", before.stable_id)
    .execute();
  const written = await find(tx, { orgId: before.org_id, stableId: before.stable_id });
  return written ?? gone(before.stable_id);
}

/**
 * Locks the agents' rows until the commit, so that none is removed meanwhile; returns the existing
 * ids.
 */
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
