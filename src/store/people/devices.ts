import { type RawBuilder, sql } from "kysely";
import { refuse } from "../../errors.ts";
import * as agents from "../agents/agents.ts";
import { canonical } from "../pg/canonical.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { DeviceRow, Json, PresenceRow } from "../pg/schema.ts";
import * as events from "../work/events.ts";
import * as runs from "../work/runs.ts";
import * as turns from "../work/turns.ts";
import * as watchers from "../work/watchers.ts";
import { describe } from "./changes.ts";
import * as joinCodes from "./join-codes.ts";
import * as members from "./members.ts";
import * as tokens from "./tokens.ts";

export type Platform = "macos" | "linux" | "windows" | "ios" | "android" | "browser";

/** A first one of these in an org brings the default watcher. */
const desktopPlatforms: ReadonlySet<string> = new Set<Platform>(["macos", "linux", "windows"]);

/** Whether a device is there, by the database's clock. */
export type Liveness = "online" | "unsteady" | "offline" | "never";

/** A device with what is known of its session and its runs. */
export type Device = DeviceRow & {
  liveness: Liveness;
  session_epoch: number;
  replica_id: string | null;
  connected_at: Date | null;
  disconnected_at: Date | null;
  last_beat_at: Date | null;
  /** Attempts claimed or running on it. */
  active_runs: number;
  /** Runs that wait for it. */
  pending_runs: number;
};

/** The watcher that an org's first desktop device brings. */
export const defaultWatcher = {
  slug: "daily-checkin",
  name: "Daily check-in",
  schedule: "0 9 * * *",
  timeZone: "UTC",
  prompt: `Give a short daily check-in of this machine and of what was worked on here since the last one: what changed, what looks unfinished, what deserves attention today. A few lines are enough.

If you lack history or context, say so; do not invent.`,
} as const;

export type Enrolment = {
  orgId: string;
  deviceId: string;
  /** The device's token; shown only here. */
  secret: string;
  /** The device's earlier tokens, which are good no more. */
  revokedTokenIds: string[];
  /** The default watcher, if this device brought it. */
  defaultWatcherId: string | undefined;
};

/**
 * Turns a join code into a device and its token, in one transaction. With an install_id that the org knows, that device
 * is enrolled again and its earlier tokens end. Refuses with `unauthenticated` for a code that is unknown, used or
 * expired, or whose maker or the maker's token is gone, and with `permission_denied` for another platform than the device's and for a device that is not the code's
 * to enrol; none of these uses the code up.
 *
 * A device that has an owner is enrolled again with a code of that owner, or of who is an owner or admin of the org at
 * this moment; it keeps its owner. Once the owner has left the org, any member's code will do, and makes the device
 * theirs. A service's code is for new devices, and those without an owner.
 *
 * The org's first desktop device also brings the default watcher, pinned to it, with `defaultNextSlotAt` as its next
 * slot: exactly once ever, by the sentinel `metadata.default_watcher_at`.
 */
export function enroll(
  db: Db,
  options: {
    joinCode: string;
    installId: string;
    platform: Platform;
    label: string;
    appVersion: string;
    defaultNextSlotAt: Date;
  },
): Promise<Enrolment> {
  return transaction(db, async (tx) => {
    const code = await joinCodes.consume(tx, { code: options.joinCode });
    if (!code) {
      refuse("unauthenticated", "the join code is unknown, used or expired; ask for a new one");
    }
    const { orgId, userId } = code;
    const role = userId ? await members.holdRole(tx, { orgId, userId }) : undefined;
    if (userId && !role) {
      refuse("unauthenticated", "whoever made the join code has left the org; ask for a new one");
    }
    await joinCodes.requireMaker(tx, code);
    // Members are locked before devices, as by whoever removes a member; so the owner is read first and compared below.
    const known = await tx
      .selectFrom("device")
      .select(["owner_id", "platform", "is_worker"])
      .where("org_id", "=", orgId)
      .where("install_id", "=", options.installId)
      .executeTakeFirst();
    if (known?.is_worker) {
      refuse(
        "permission_denied",
        "this installation is a fleet worker's; give the device a state directory of its own",
      );
    }
    const knownOwnerId = known?.owner_id ?? null;
    let ownerId = userId;
    if (knownOwnerId !== null && knownOwnerId !== userId) {
      if (!userId) refuseTakeover();
      if (await members.hold(tx, { orgId, userId: knownOwnerId })) {
        if (role !== "owner" && role !== "admin") refuseTakeover();
        ownerId = knownOwnerId;
      }
    }
    if (known && known.platform !== options.platform) {
      refuse(
        "permission_denied",
        "this installation is enrolled as another platform; a platform is set once",
      );
    }
    const { rows } = await sql<{ id: string; is_new: boolean }>`
      insert into device (org_id, owner_id, install_id, platform, label, app_version)
      values (${orgId}, ${ownerId}, ${options.installId}, ${options.platform}, ${options.label}, ${options.appVersion})
      on conflict (org_id, install_id) do update
        set owner_id = excluded.owner_id, label = excluded.label, app_version = excluded.app_version
        where device.platform = excluded.platform and not device.is_worker
          and (device.owner_id is not distinct from ${knownOwnerId}::uuid or device.owner_id = ${ownerId}::uuid)
      returning id, xmax = 0 as is_new`.execute(tx);
    const device = rows[0];
    if (!device) {
      refuse("aborted", "this installation was enrolled by somebody else just now; try again", {
        retryAfterMs: 1_000,
      });
    }
    const revoked = await tx
      .updateTable("token")
      .set({ revoked_at: sql<Date>`now()` })
      .where("org_id", "=", orgId)
      .where("device_id", "=", device.id)
      .where("revoked_at", "is", null)
      .returning("id")
      .execute();
    const { token, secret } = await tokens.issue(tx, {
      orgId,
      kind: "dev",
      label: options.label,
      scopes: ["device:run"],
      userId: ownerId,
      deviceId: device.id,
    });
    const defaultWatcherId = desktopPlatforms.has(options.platform)
      ? await provisionDefaultWatcher(tx, {
          orgId,
          deviceId: device.id,
          nextSlotAt: options.defaultNextSlotAt,
        })
      : undefined;

    const entries: Omit<events.NewEvent, "orgId">[] = [
      {
        kind: "device.enrolled",
        actor: userId ? `user:${userId}` : `device:${device.id}`,
        deviceId: device.id,
        data: {
          label: options.label,
          platform: options.platform,
          app_version: options.appVersion,
          token_id: token.id,
          is_new: device.is_new,
        },
      },
    ];
    if (defaultWatcherId) {
      entries.push({
        kind: "watcher.created",
        actor: "pinion",
        watcherId: defaultWatcherId,
        deviceId: device.id,
        data: { slug: defaultWatcher.slug, version: 1 },
      });
    }
    await events.append(tx, orgId, entries);
    return {
      orgId,
      deviceId: device.id,
      secret,
      revokedTokenIds: revoked.map((row) => row.id),
      defaultWatcherId,
    };
  });
}

function refuseTakeover(): never {
  refuse(
    "permission_denied",
    "this installation is enrolled for somebody else; ask them, or an owner or admin of the org, for the join code",
  );
}

/** The new watcher's id; undefined if the org had its default watcher before, or has no default agent to give it. */
async function provisionDefaultWatcher(
  tx: Db,
  options: { orgId: string; deviceId: string; nextSlotAt: Date },
): Promise<string | undefined> {
  // "No key": devices that enrol at once hold the org's key lock through their foreign keys, and a plain `for update`
  // would make them wait for each other. Whoever waits here sees the sentinel afterwards and gets no row.
  const org = await tx
    .selectFrom("org")
    .select("default_agent_id")
    .where("id", "=", options.orgId)
    .where("default_agent_id", "is not", null)
    .where(sql<boolean>`not metadata ? 'default_watcher_at'`)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!org?.default_agent_id) return undefined;
  await tx
    .updateTable("org")
    .set({ metadata: sql`metadata || jsonb_build_object('default_watcher_at', now())` })
    .where("id", "=", options.orgId)
    .execute();
  return watchers.provision(tx, {
    orgId: options.orgId,
    slug: defaultWatcher.slug,
    name: defaultWatcher.name,
    prompt: defaultWatcher.prompt,
    agentId: org.default_agent_id,
    deviceId: options.deviceId,
    schedule: defaultWatcher.schedule,
    timeZone: defaultWatcher.timeZone,
    nextSlotAt: options.nextSlotAt,
  });
}

/** Of the presence `p`. A beat is one sign of life; opening and closing a stream are two more. */
function livenessOf(ttlMs: number): RawBuilder<Liveness> {
  const ttl = sql`${ttlMs} * interval '1 millisecond'`;
  return sql`case
    when p.connected_at is null then 'never'
    when p.disconnected_at is null and greatest(p.last_beat_at, p.connected_at) > now() - ${ttl} then 'online'
    when p.disconnected_at is not null and greatest(p.last_beat_at, p.disconnected_at) > now() - ${ttl} then 'unsteady'
    else 'offline' end`;
}

function selectDevices(db: Db, ttlMs: number) {
  return db
    .selectFrom("device as d")
    .leftJoin("presence as p", (join) =>
      join.onRef("p.org_id", "=", "d.org_id").onRef("p.device_id", "=", "d.id"),
    )
    .leftJoinLateral(
      (eb) =>
        eb
          .selectFrom("run as r")
          .select(sql<number>`count(*) filter (where r.status = 'pending')`.as("pending"))
          .select(sql<number>`count(*) filter (where r.status <> 'pending')`.as("active"))
          .whereRef("r.org_id", "=", "d.org_id")
          .whereRef("r.device_id", "=", "d.id")
          .as("runs"),
      (join) => join.onTrue(),
    )
    .selectAll("d")
    .select(["p.replica_id", "p.connected_at", "p.disconnected_at", "p.last_beat_at"])
    .select(livenessOf(ttlMs).as("liveness"))
    .select(sql<number>`coalesce(p.epoch, 0)`.as("session_epoch"))
    .select(sql<number>`runs.active`.as("active_runs"))
    .select(sql<number>`runs.pending`.as("pending_runs"));
}

/** The device as a row, without what its session says. */
export function find(db: Db, options: { orgId: string; deviceId: string }): Promise<DeviceRow | undefined> {
  return db
    .selectFrom("device")
    .selectAll()
    .where("org_id", "=", options.orgId)
    .where("id", "=", options.deviceId)
    .executeTakeFirst();
}

/** The device with its liveness. Refuses with `not_found`, also for another org's. */
export async function get(
  db: Db,
  options: { orgId: string; deviceId: string; ttlMs: number },
): Promise<Device> {
  const device = await selectDevices(db, options.ttlMs)
    .where("d.org_id", "=", options.orgId)
    .where("d.id", "=", options.deviceId)
    .executeTakeFirst();
  return device ?? notFound(options.deviceId);
}

function notFound(deviceId: string): never {
  refuse("not_found", `there is no device ${deviceId}`);
}

/** The org's devices by label, at most `limit`: those after `after`, and those that a filter names, where given. */
export function list(
  db: Db,
  options: {
    orgId: string;
    ttlMs: number;
    limit: number;
    after?: { label: string; id: string } | undefined;
    isWorker?: boolean | undefined;
    liveness?: readonly Liveness[];
    /** A part of the label, whatever its case. */
    labelContains?: string;
    platforms?: readonly Platform[];
    /** Those that have all of these, given or reported. */
    labels?: readonly string[];
  },
): Promise<Device[]> {
  const { liveness = [], labelContains = "", platforms = [], labels = [] } = options;
  let query = selectDevices(db, options.ttlMs)
    .where("d.org_id", "=", options.orgId)
    .orderBy("d.label")
    .orderBy("d.id")
    .limit(options.limit);
  if (options.after) {
    query = query.where(sql<boolean>`(d.label, d.id) > (${options.after.label}, ${options.after.id})`);
  }
  if (options.isWorker !== undefined) query = query.where("d.is_worker", "=", options.isWorker);
  // An org has some thousand devices: all of them are looked at, for which no index is worth its writes.
  if (liveness.length > 0) {
    query = query.where(sql<boolean>`${livenessOf(options.ttlMs)} = any(${liveness as Liveness[]}::text[])`);
  }
  if (labelContains !== "") {
    query = query.where(sql<boolean>`position(lower(${labelContains}) in lower(d.label)) > 0`);
  }
  if (platforms.length > 0) query = query.where("d.platform", "in", platforms as Platform[]);
  for (const label of labels) query = query.where(hasLabel(label));
  return query.execute();
}

/** Whether the device `d` has a label, given by people or reported: as labels.ts makes them of its columns. */
function hasLabel(label: string): RawBuilder<boolean> {
  const [, kind, name] = /^(has|workspace):(.*)$/s.exec(label) ?? [];
  if (!kind) return sql<boolean>`${label} = any(d.labels)`;
  const isUsable = sql`coalesce(e->>'problem', '') = ''`;
  return kind === "has"
    ? sql<boolean>`${name} = any(d.agent_kinds) and not exists (
        select from jsonb_array_elements(d.executors) e where e->>'kind' = ${name} and not ${isUsable})`
    : sql<boolean>`exists (select from jsonb_array_elements(d.workspaces) e where e->>'name' = ${name} and ${isUsable})`;
}

/** Gives a device another label, with the event `device.updated`; the same label changes nothing. Refuses with `not_found`. */
export function updateLabel(
  db: Db,
  options: { orgId: string; deviceId: string; label: string; actor: string },
): Promise<void> {
  return transaction(db, async (tx) => {
    const before = await tx
      .selectFrom("device")
      .select("label")
      .where("org_id", "=", options.orgId)
      .where("id", "=", options.deviceId)
      .forNoKeyUpdate()
      .executeTakeFirst();
    if (!before) notFound(options.deviceId);
    if (before.label === options.label) return;
    await tx
      .updateTable("device")
      .set({ label: options.label })
      .where("org_id", "=", options.orgId)
      .where("id", "=", options.deviceId)
      .execute();
    await events.append(tx, options.orgId, [
      {
        kind: "device.updated",
        actor: options.actor,
        deviceId: options.deviceId,
        data: describe({ label: before.label }, { label: options.label }),
      },
    ]);
  });
}

/** What a hello says of its device. An empty label keeps the stored one. */
export type HelloFacts = {
  appVersion: string;
  label: string;
  agentKinds: readonly string[];
  capabilities: readonly string[];
  maxConcurrency: number;
  /** JSON of ExecutorInfo and of WorkspaceInfo. */
  executors: readonly Json[];
  workspaces: readonly Json[];
  /** What is wrong with its configuration file; empty: nothing. */
  configProblem: string;
};

/** The machine of a session. Hashes that are empty are not known. */
export type Machine = { machineHash: string; bootHash: string; hostName: string; arch: string };

/** Whether two fingerprints are of different machines: all that both know differs. A change of one alone is tolerated. */
export function isOtherMachine(a: Partial<Machine>, b: Partial<Machine>): boolean {
  const known = (["machineHash", "bootHash"] as const).filter((part) => a[part] && b[part]);
  return known.length > 0 && known.every((part) => a[part] !== b[part]);
}

/** How often the same machine is an event, and how often its row is written, in milliseconds. */
const duplicateEventMs = 3_600_000;
const duplicateWriteMs = 60_000;

/**
 * The machine on which a session of the device is alive, if it is another one than this. The one that is turned down is noted on
 * the device, with the event `device.duplicate_refused` once an hour. A session without a stream, or silent for the TTL, is not
 * alive.
 */
export async function findOtherMachine(
  db: Db,
  before: DeviceRow,
  options: { machine: Machine; ttlMs: number },
): Promise<{ hostName: string } | undefined> {
  const { org_id: orgId, id: deviceId } = before;
  const current = before.machine as Partial<Machine>;
  if (!isOtherMachine(current, options.machine)) return undefined;
  const alive = await db
    .selectFrom("presence")
    .select(
      sql<boolean>`disconnected_at is null
      and greatest(last_beat_at, connected_at) > now() - ${options.ttlMs} * interval '1 millisecond'`.as(
        "isAlive",
      ),
    )
    .where("org_id", "=", orgId)
    .where("device_id", "=", deviceId)
    .executeTakeFirst();
  if (!alive?.isAlive) return undefined;
  const seen = before.duplicate as { hostName: string; seenAt: string } | null;
  const isKnown = seen?.hostName === options.machine.hostName;
  const sinceMs = isKnown ? Date.now() - Date.parse(seen.seenAt) : Number.POSITIVE_INFINITY;
  if (sinceMs > duplicateWriteMs) {
    await transaction(db, async (tx) => {
      const duplicate = { hostName: options.machine.hostName, seenAt: new Date().toISOString() };
      await tx
        .updateTable("device")
        .set({ duplicate: JSON.stringify(duplicate) })
        .where("org_id", "=", orgId)
        .where("id", "=", deviceId)
        .execute();
      if (sinceMs <= duplicateEventMs) return;
      await events.append(tx, orgId, [
        {
          kind: "device.duplicate_refused",
          actor: `device:${deviceId}`,
          deviceId,
          data: { host_name: options.machine.hostName, connected_from: current.hostName ?? "" },
        },
      ]);
    });
  }
  return { hostName: current.hostName ?? "" };
}

/** Notes the machine of a session that is about to be opened. */
export async function noteMachine(db: Db, before: DeviceRow, machine: Machine): Promise<void> {
  if (canonical(before.machine) === canonical(machine)) return;
  await db
    .updateTable("device")
    .set({ machine: JSON.stringify(machine) })
    .where("org_id", "=", before.org_id)
    .where("id", "=", before.id)
    .execute();
}

/**
 * Takes over what a hello says of the device as it was just read, with the event `device.updated`. A hello that says nothing
 * new costs nothing. True if something changed.
 */
export async function updateFromHello(db: Db, before: DeviceRow, facts: HelloFacts): Promise<boolean> {
  if (changesOf(before, facts).length === 0) return false;
  const { org_id: orgId, id: deviceId } = before;
  return transaction(db, async (tx) => {
    const current = await tx
      .selectFrom("device")
      .selectAll()
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .forNoKeyUpdate()
      .executeTakeFirst();
    const changes = current ? changesOf(current, facts) : [];
    if (changes.length === 0) return false;
    await tx
      .updateTable("device")
      .set(columnsOfChanges(changes))
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .execute();
    await events.append(tx, orgId, [changedEvent(deviceId, changes)]);
    return true;
  });
}

export type Change = { column: string; from: unknown; to: unknown };

/** The columns that a hello changed; lists of objects are jsonb. */
export function columnsOfChanges(changes: readonly Change[]): Record<string, unknown> {
  return Object.fromEntries(
    changes.map(({ column, to }) => [
      column,
      column === "executors" || column === "workspaces" ? JSON.stringify(to) : to,
    ]),
  );
}

/** The event of what a hello changed. */
export function changedEvent(deviceId: string, changes: readonly Change[]): Omit<events.NewEvent, "orgId"> {
  return {
    kind: "device.updated",
    actor: `device:${deviceId}`,
    deviceId,
    data: describe(
      Object.fromEntries(changes.map(({ column, from }) => [column, from])),
      Object.fromEntries(changes.map(({ column, to }) => [column, to])),
    ),
  };
}

/** What a hello says anew. */
export function changesOf(device: DeviceRow, facts: HelloFacts): Change[] {
  const changes: Change[] = [
    { column: "app_version", from: device.app_version, to: facts.appVersion },
    { column: "label", from: device.label, to: facts.label === "" ? device.label : facts.label },
    { column: "agent_kinds", from: device.agent_kinds, to: [...facts.agentKinds] },
    { column: "capabilities", from: device.capabilities, to: [...facts.capabilities] },
    { column: "max_concurrency", from: device.max_concurrency, to: facts.maxConcurrency },
    { column: "executors", from: device.executors, to: [...facts.executors] },
    { column: "workspaces", from: device.workspaces, to: [...facts.workspaces] },
    { column: "config_problem", from: device.config_problem, to: facts.configProblem },
  ];
  return changes.filter(({ from, to }) => canonical(from) !== canonical(to));
}

/** Ends runs within the transaction, in which only events may follow. */
export type CancelRuns<Cancelled> = (
  tx: Db,
  options: { orgId: string; deviceId: string; reason: string },
) => Promise<Cancelled>;

/** A stream that is open: who holds it, and its epoch. */
export type Session = { replicaId: string; epoch: number };

export type Removal<Cancelled> = {
  /** What `cancelRuns` said. */
  cancelled: Cancelled;
  watchersUnpinned: number;
  agentsUnpinned: number;
  /** Tokens that are gone with the device. */
  tokenIds: string[];
  /** The session that is to be closed, if one is open. */
  session: Session | undefined;
};

/**
 * Removes a device: its watchers and agents are unpinned and show that they have no executor, its tokens and its presence go with it, and its
 * live runs are ended by `cancelRuns`. Refuses with `not_found`.
 */
export function remove<Cancelled>(
  db: Db,
  options: { orgId: string; deviceId: string; actor: string; cancelRuns: CancelRuns<Cancelled> },
): Promise<Removal<Cancelled>> {
  const { orgId, deviceId } = options;
  return transaction(db, async (tx) => {
    // Waits for whoever is pinning a watcher to it, and keeps others from it.
    const device = await tx
      .selectFrom("device")
      .select(["label", "owner_id", "is_worker"])
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .forUpdate()
      .executeTakeFirst();
    if (!device) notFound(deviceId);
    // Runs are locked before watchers, as a completion does, so that neither waits for the other.
    await runs.lockForCancel(tx, { orgId, deviceId });
    const reason = `device "${device.label}" was deleted`;
    await turns.lockOfDevice(tx, { orgId, deviceId });
    const watcherIds = await watchers.unpinAll(tx, { orgId, deviceId, reason });
    // Before the turns that only it may take are ended with its runs: whoever starts one holds the agent's pin.
    const agentEvents = await agents.unpinAll(tx, { orgId, deviceId, reason, actor: options.actor });
    const presence = await tx
      .selectFrom("presence")
      .select(["replica_id", "epoch", "connected_at", "disconnected_at"])
      .where("org_id", "=", orgId)
      .where("device_id", "=", deviceId)
      .forUpdate()
      .executeTakeFirst();
    const tokenRows = await tx
      .deleteFrom("token")
      .where("org_id", "=", orgId)
      .where("device_id", "=", deviceId)
      .returning("id")
      .execute();
    await tx.deleteFrom("device").where("org_id", "=", orgId).where("id", "=", deviceId).execute();
    if (!device.is_worker) {
      // What its runs said stays its owner's to read: see grants.ts.
      await tx
        .insertInto("device_past")
        .values({ org_id: orgId, device_id: deviceId, label: device.label, owner_id: device.owner_id })
        .execute();
    }
    const cancelled = await options.cancelRuns(tx, { orgId, deviceId, reason: "the device was deleted" });
    await events.append(tx, orgId, [
      ...watcherIds.map((watcherId) => ({
        kind: "watcher.updated",
        actor: options.actor,
        watcherId,
        deviceId,
        data: { ...describe({ device_id: deviceId }, { device_id: null }), status: "no_executor" },
      })),
      ...agentEvents,
      {
        kind: "device.deleted",
        actor: options.actor,
        deviceId,
        data: {
          label: device.label,
          watchers_unpinned: watcherIds.length,
          agents_unpinned: agentEvents.length,
        },
      },
    ]);
    return {
      cancelled,
      watchersUnpinned: watcherIds.length,
      agentsUnpinned: agentEvents.length,
      tokenIds: tokenRows.map((row) => row.id),
      session: presence && openSession(presence),
    };
  });
}

/** The devices of a person, locked until the commit, and the streams that they hold. */
export async function lockOwnedBy(
  tx: Db,
  options: { orgId: string; userId: string },
): Promise<{ id: string; label: string; session: Session | undefined }[]> {
  const owned = await tx
    .selectFrom("device")
    .select(["id", "label"])
    .where("org_id", "=", options.orgId)
    .where("owner_id", "=", options.userId)
    .orderBy("id")
    .forUpdate()
    .execute();
  if (owned.length === 0) return [];
  const presences = await tx
    .selectFrom("presence")
    .select(["device_id", "replica_id", "epoch", "connected_at", "disconnected_at"])
    .where("org_id", "=", options.orgId)
    .where(
      "device_id",
      "in",
      owned.map((device) => device.id),
    )
    .execute();
  const sessions = new Map(presences.map((presence) => [presence.device_id, openSession(presence)]));
  return owned.map((device) => ({ ...device, session: sessions.get(device.id) }));
}

/**
 * Notes that an operator asks the device to connect again, with the event `device.disconnect_requested`; answers which
 * stream is meant. Refuses with `not_found`, and with `failed_precondition` if the device holds no stream.
 */
export function requestDisconnect(
  db: Db,
  options: { orgId: string; deviceId: string; actor: string },
): Promise<Session> {
  const { orgId, deviceId, actor } = options;
  return transaction(db, async (tx) => {
    if (!(await find(tx, options))) notFound(deviceId);
    const presence = await tx
      .selectFrom("presence")
      .select(["replica_id", "epoch", "connected_at", "disconnected_at"])
      .where("org_id", "=", orgId)
      .where("device_id", "=", deviceId)
      .executeTakeFirst();
    const session = presence && openSession(presence);
    if (!session) refuse("failed_precondition", "the device holds no stream");
    await events.append(tx, orgId, [{ kind: "device.disconnect_requested", actor, deviceId }]);
    return session;
  });
}

function openSession(
  presence: Pick<PresenceRow, "replica_id" | "epoch" | "connected_at" | "disconnected_at">,
): Session | undefined {
  const { replica_id: replicaId, epoch } = presence;
  return replicaId && presence.connected_at && !presence.disconnected_at ? { replicaId, epoch } : undefined;
}
