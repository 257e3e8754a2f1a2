import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import * as events from "../../work/service/events.ts";
import * as devices from "./devices.ts";
import * as hellos from "./hellos.ts";

/**
 * Fleet workers: rows of `device` without a person as owner. A worker is a daemon that says hello
 * under a service's token with an install_id; its first hello creates the row, so that presence,
 * epochs, heartbeats and reaping work as for devices. Several workers may share a token.
 */

/** Maximum workers of an org, to limit hellos with ever new install_ids. */
const workersPerOrgMax = 1_000;

/**
 * Maximum number of rotations over which a token counts as the successor of a worker's earlier
 * token.
 */
const rotationsMax = 20;

export type Entry = {
  deviceId: string;
  /** The events that the caller appends as its last statement. */
  events: Omit<events.NewEvent, "orgId">[];
};

/**
 * The worker of a hello, created if new, with its row locked until the commit. The operating system
 * may change with each hello, because no enrolment fixed the system.
 *
 * Refuses with `permission_denied` an install_id of an enrolled device, an install_id of another
 * token's worker heard of within `ttlMs` milliseconds (except for a successor of that token, or
 * after that token has ended), and a system without local programs; with `resource_exhausted` an
 * org with 1,000 workers.
 */
export async function enter(tx: Db, hello: Hello): Promise<Entry> {
  const { os } = hello;
  if (!devices.runsPrograms(os)) {
    refuse("permission_denied", `a fleet worker runs on macos, linux or windows, not on ${os}`, {
      field: "hello.os",
    });
  }
  const known = await lock(tx, hello);
  if (known) return enterAgain(tx, hello, known);
  const made = await insert(tx, hello);
  if (made) return made;
  // Another hello of the same installation was faster.
  const other =
    (await lock(tx, hello)) ??
    refuse("aborted", "this worker was removed just now; connect again", { retryAfterMs: 1_000 });
  return enterAgain(tx, hello, other);
}

type Hello = {
  orgId: string;
  tokenId: string;
  installId: string;
  os: devices.Os;
  ttlMs: number;
} & hellos.HelloFacts;

type Known = NonNullable<Awaited<ReturnType<typeof lock>>>;

/** The next hello of a worker whose row is locked. */
async function enterAgain(tx: Db, hello: Hello, known: Known): Promise<Entry> {
  const { orgId, tokenId, os } = hello;
  await requireMayEnter(tx, hello, known);
  const changes = [
    ...hellos.changesOf(known, hello),
    ...(known.os === os ? [] : [{ column: "os", from: known.os, to: os }]),
  ];
  if (changes.length > 0 || known.token_id !== tokenId) {
    await tx
      .updateTable("device")
      .set({ ...hellos.columnsOfChanges(changes), token_id: tokenId })
      .where("org_id", "=", orgId)
      .where("id", "=", known.id)
      .execute();
  }
  return {
    deviceId: known.id,
    events: changes.length > 0 ? [hellos.changedEvent(known.id, changes)] : [],
  };
}

/** The worker of an installation, if its last hello was under the token. */
export function findOfToken(
  db: Db,
  worker: { orgId: string; tokenId: string; installId: string },
): Promise<devices.Known | undefined> {
  return db
    .selectFrom("device")
    .selectAll()
    .where("org_id", "=", worker.orgId)
    .where("install_id", "=", worker.installId)
    .where("is_worker", "=", true)
    .where("token_id", "=", worker.tokenId)
    .executeTakeFirst();
}

async function requireMayEnter(tx: Db, hello: Hello, known: Known): Promise<void> {
  const field = "hello.install_id";
  if (!known.is_worker) {
    const why = "this installation is enrolled as a device; give the worker a state directory of its own";
    refuse("permission_denied", why, { field });
  }
  const before = known.token_id;
  if (before === hello.tokenId) return;
  if (await mayTakeOver(tx, { ...hello, deviceId: known.id, before })) return;
  refuse(
    "permission_denied",
    "a worker with another token has this install_id, and was heard of just now; stop it first, " +
      "or give this one a state directory of its own",
    { field },
  );
}

/** Creates the worker, if no row has its install_id. */
async function insert(tx: Db, hello: Hello): Promise<Entry | undefined> {
  const { orgId, tokenId, installId, os, appVersion } = hello;
  const label = hello.label || `worker-${installId.slice(0, 8)}`;
  const made = await tx
    .insertInto("device")
    .values({
      org_id: orgId,
      install_id: installId,
      os,
      label,
      app_version: appVersion,
      agent_kinds: [...hello.agentKinds],
      capabilities: [...hello.capabilities],
      max_concurrency: hello.maxConcurrency,
      executors: JSON.stringify(hello.executors),
      workspaces: JSON.stringify(hello.workspaces),
      is_worker: true,
      token_id: tokenId,
    })
    .onConflict((conflict) => conflict.columns(["org_id", "install_id"]).doNothing())
    .returning("id")
    .executeTakeFirst();
  if (!made) return undefined;
  await requireRoom(tx, orgId);
  const data = { label, os, app_version: appVersion, token_id: tokenId, is_new: true, is_worker: true };
  return {
    deviceId: made.id,
    events: [{ kind: "device.enrolled", actor: `service:${tokenId}`, deviceId: made.id, data }],
  };
}

/** Counts the new worker, too. */
async function requireRoom(tx: Db, orgId: string): Promise<void> {
  const { rows } = await sql<{ workers: number }>`
    select count(*) as workers from device where org_id = ${orgId} and is_worker
  `.execute(tx);
  if ((rows[0]?.workers ?? 0) <= workersPerOrgMax) return;
  refuse(
    "resource_exhausted",
    `the org has ${workersPerOrgMax} fleet workers already; delete some that are away`,
    { retryAfterMs: 60_000 },
  );
}

function lock(tx: Db, worker: { orgId: string; installId: string }) {
  return tx
    .selectFrom("device")
    .selectAll()
    .where("org_id", "=", worker.orgId)
    .where("install_id", "=", worker.installId)
    .forNoKeyUpdate()
    .executeTakeFirst();
}

/**
 * Whether a token may take over another token's worker: as its successor, after the other token has
 * ended, or after the worker was silent for `ttlMs` milliseconds.
 */
async function mayTakeOver(
  tx: Db,
  worker: { orgId: string; deviceId: string; tokenId: string; before: string | null; ttlMs: number },
): Promise<boolean> {
  const { rows } = await sql<{ may: boolean }>`
    with recursive line as (
      select id, predecessor_id, 1 as length from token where org_id = ${worker.orgId} and id = ${worker.tokenId}
      union all
      select t.id, t.predecessor_id, l.length + 1
      from line l join token t on t.org_id = ${worker.orgId} and t.id = l.predecessor_id
      where l.length <= ${rotationsMax}
    )
    select exists (select from line where id = ${worker.before})
      or not exists (select from token where org_id = ${worker.orgId} and id = ${worker.before}
        and revoked_at is null and (expires_at is null or expires_at > now()))
      or not exists (select from presence where org_id = ${worker.orgId} and device_id = ${worker.deviceId}
        and greatest(last_beat_at, connected_at, disconnected_at) > now() - ${worker.ttlMs} * interval '1 ms') as may
  `.execute(tx);
  return rows[0]?.may ?? false;
}

/** The worker of the token that has or had an attempt; undefined for an attempt of none. */
export async function findHolder(
  db: Db,
  attempt: { orgId: string; tokenId: string; workId: string; attemptToken: string },
): Promise<string | undefined> {
  const { rows } = await sql<{ deviceId: string }>`
    select d.id as "deviceId"
    from run_all r
      cross join lateral (
        select r.device_id where r.attempt_token = ${attempt.attemptToken}::uuid
        union all
        select (entry->>'device_id')::uuid from jsonb_array_elements(r.past_attempts) entry
        where entry->>'token' = ${attempt.attemptToken}::text
      ) held
      join device d on d.org_id = r.org_id and d.id = held.device_id
    where r.org_id = ${attempt.orgId} and r.id = ${attempt.workId} and d.is_worker and d.token_id = ${attempt.tokenId}
    limit 1
  `.execute(db);
  return rows[0]?.deviceId;
}

/** The facts for ExplainRun about the org's fleet, for an unpinned run of an agent kind. */
export type Fleet = {
  /** Number of workers with a stream and a heartbeat within the TTL. */
  online: number;
  /** Number of them that offer the run's kind. */
  matching: number;
  /** Their slots, and attempts out at them. */
  slots: number;
  active: number;
  /** Agent kinds of online workers, sorted. At most 20. */
  kinds: string[];
  /** The worker with the latest heartbeat, online or not. */
  lastLabel: string | null;
  lastHeardAt: Date | null;
  /** Pending unpinned runs of the org, including the explained run. */
  pending: number;
};

const kindsShownMax = 20;

export async function findFleet(
  db: Db,
  options: { orgId: string; agentKind: string; ttlMs: number },
): Promise<Fleet> {
  const { rows } = await sql<Fleet>`
    with fleet as materialized (
      select d.id, d.label, d.agent_kinds, d.max_concurrency,
        greatest(p.last_beat_at, p.connected_at, p.disconnected_at) as heard_at,
        coalesce(p.disconnected_at is null and greatest(p.last_beat_at, p.connected_at)
          > now() - ${options.ttlMs} * interval '1 ms', false) as is_online,
        ${options.agentKind}::text = '' or ${options.agentKind}::text = any(d.agent_kinds) as is_matching
      from device d left join presence p on p.org_id = d.org_id and p.device_id = d.id
      where d.org_id = ${options.orgId} and d.is_worker
    )
    select count(*) filter (where is_online) as online,
      count(*) filter (where is_online and is_matching) as matching,
      coalesce(sum(max_concurrency) filter (where is_online and is_matching), 0)::int as slots,
      (select count(*) from run r where r.org_id = ${options.orgId} and r.status <> 'pending'
        and r.device_id in (select id from fleet where is_online and is_matching)) as active,
      array(select distinct kind from fleet cross join lateral unnest(agent_kinds) kind
        where is_online order by kind limit ${kindsShownMax}) as kinds,
      (select label from fleet order by heard_at desc nulls last limit 1) as "lastLabel",
      max(heard_at) as "lastHeardAt",
      (select count(*) from run r where r.org_id = ${options.orgId} and r.device_id is null and not r.is_held) as pending
    from fleet
  `.execute(db);
  return onlyRow(rows);
}

/**
 * Deletes up to `limit` workers without a heartbeat for `awayMs` milliseconds and without attempts,
 * each with the event `device.deleted`. A worker whose row is locked is skipped: it is just saying
 * hello.
 */
export async function removeAway(tx: Db, options: { awayMs: number; limit: number }): Promise<number> {
  const { rows } = await sql<{ orgId: string; deviceId: string; label: string }>`
    with away as materialized (
      select d.org_id, d.id
      from device d left join presence p on p.org_id = d.org_id and p.device_id = d.id
      where d.is_worker
        and greatest(d.created_at, p.last_beat_at, p.connected_at, p.disconnected_at)
          < now() - ${options.awayMs} * interval '1 ms'
        and not exists (select from run r where r.org_id = d.org_id and r.device_id = d.id)
      limit ${options.limit}
      for update of d skip locked
    )
    delete from device d using away a where d.org_id = a.org_id and d.id = a.id
    returning d.org_id as "orgId", d.id as "deviceId", d.label
  `.execute(tx);
  await events.appendAll(
    tx,
    rows.map(({ orgId, deviceId, label }) => ({
      orgId,
      kind: "device.deleted",
      actor: "pinion",
      deviceId,
      data: { label, is_worker: true, reason: "away, and holding nothing" },
    })),
  );
  return rows.length;
}
