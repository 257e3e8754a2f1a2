/** Initial rows of a test, and functions that move them in time and hold a transaction open. */
import { randomUUID } from "node:crypto";
import { sql } from "kysely";
import type { Report } from "../../src/scheduler/endings/endings.ts";
import { trigger } from "../../src/scheduler/starts/triggers.ts";
import { type Opening, openSession } from "../../src/server/device/reconcile/reconcile.ts";
import type { Held } from "../../src/server/device/reconcile/reconciliation.ts";
import * as agents from "../../src/store/agents/agents.ts";
import * as tokens from "../../src/store/people/credentials/tokens.ts";
import type * as devices from "../../src/store/people/devices/devices.ts";
import * as joinCodes from "../../src/store/people/devices/join-codes.ts";
import * as workers from "../../src/store/people/devices/workers.ts";
import { ensureBootstrap, localOrgId } from "../../src/store/people/orgs/orgs.ts";
import { type Db, transaction } from "../../src/store/pg/database.ts";
import * as attempts from "../../src/store/work/attempts/attempts.ts";
import * as runClaims from "../../src/store/work/runs/run-claims.ts";
import * as runs from "../../src/store/work/runs/runs.ts";
import type * as presence from "../../src/store/work/service/presence.ts";
import * as replicas from "../../src/store/work/service/replicas.ts";
import type { WatcherName } from "../../src/store/work/watchers/schedules.ts";
import type { WatcherValues } from "../../src/store/work/watchers/watcher-values.ts";
import * as watchers from "../../src/store/work/watchers/watchers.ts";
import { enroll } from "../../src/usecases/enrolments.ts";
import * as usecases from "../../src/usecases/watchers.ts";
import { noteDoorbell, policy, surroundings } from "./surroundings.ts";

export const orgId = localOrgId;
export const reapRules: attempts.ReapRules = {
  ttlMs: 60_000,
  silentAttemptMs: 180_000,
  neverBeatMs: 7_200_000,
  runTimeoutGraceMs: 60_000,
};

export type DeviceName = { orgId: string; deviceId: string };

/** The local org (created if missing), or another org with its own agent. */
export async function seedOrg(db: Db, id: string = orgId): Promise<string> {
  if (id === orgId) {
    await ensureBootstrap(db);
    return id;
  }
  await db
    .insertInto("org")
    .values({ id, name: id, default_agent_id: "pinion-default" })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  await agents.ensure(db, {
    orgId: id,
    agentId: "pinion-default",
    name: "Pinion",
    ownerId: null,
    settings: {},
  });
  return id;
}

/** A phone by default, because a phone brings no default watcher. */
export async function seedDevice(
  db: Db,
  options: { orgId?: string; os?: devices.Os } = {},
): Promise<DeviceName> {
  const org = await seedOrg(db, options.orgId);
  const { code } = await joinCodes.create(db, {
    tokenId: null,
    orgId: org,
    userId: null,
    expiresInMs: 60_000,
    actor: "pinion",
  });
  const { os = "android" } = options;
  const asked = { joinCode: code, installId: randomUUID(), os, label: "test", appVersion: "test" };
  const { deviceId } = await enroll(db, asked, surroundings);
  return { orgId: org, deviceId };
}

export const watcherValues: WatcherValues = {
  name: "Test",
  prompt: "say it",
  agentId: "",
  deviceId: null,
  agentKind: "",
  schedule: null,
  timeZone: "UTC",
  overlap: "skip",
  catchup: "collapse",
  catchupWindowMs: 86_400_000,
  jitterMs: 0,
  minCooldownMs: 0,
  startDeadlineMs: null,
  timeoutMs: 3_600_000,
  maxAttempts: 1,
  notification: "none",
  extractionSchema: null,
  agentWork: {},
  after: [],
  placement: null,
};

/** A watcher pinned to a device; manual only, unless a schedule is given. */
export async function seedWatcher(
  db: Db,
  device: DeviceName,
  values: Partial<WatcherValues> = {},
): Promise<WatcherName> {
  const wanted = {
    orgId: device.orgId,
    actor: "pinion",
    slug: `w-${randomUUID()}`.slice(0, 20),
    requestId: "",
    values: { ...watcherValues, deviceId: device.deviceId, ...values },
  };
  const watcher = await usecases.create(db, wanted, surroundings);
  return { orgId: device.orgId, watcherId: watcher.id };
}

/**
 * An hourly schedule whose slots are about half an hour away from now, so that no slot passes
 * during a test. `slot(0)` is the latest passed slot, `slot(1)` the slot before, `slot(-1)` the
 * next slot.
 */
export function hourly(): { schedule: string; slot: (hoursBack: number) => Date } {
  const latest = new Date(Date.now() - 1_800_000);
  latest.setUTCSeconds(0, 0);
  return {
    schedule: `${latest.getUTCMinutes()} * * * *`,
    slot: (hoursBack) => new Date(latest.getTime() - hoursBack * 3_600_000),
  };
}

/** Puts a watcher's schedule at a slot, as if no pass had read the watcher since. */
export async function putSchedule(db: Db, watcher: WatcherName, slotAt: Date): Promise<void> {
  await db
    .updateTable("schedule_position")
    .set({ next_slot_at: slotAt, next_due_at: slotAt })
    .where("watcher_id", "=", watcher.watcherId)
    .execute();
}

/** Opens the device's session like a hello on this replica; the replica is alive. */
export async function openDevice(
  db: Db,
  device: DeviceName,
  options: { held?: Held[]; replicaId?: string } = {},
): Promise<Opening> {
  const replicaId = options.replicaId ?? "replica-1";
  await replicas.beat(db, { id: replicaId, address: "nowhere" });
  const opening = await transaction(db, (tx) =>
    openSession(tx, { ...device, replicaId, held: options.held ?? [], policy, ttlMs: reapRules.ttlMs }),
  );
  sessionIds.set(`${device.deviceId} ${opening.epoch}`, opening.sessionId);
  return opening;
}

/** The whole name of the device's current session. */
export async function currentSession(db: Db, { orgId, deviceId }: DeviceName): Promise<presence.SessionName> {
  const { epoch, session_id: sessionId } = await db
    .selectFrom("presence")
    .select(["epoch", "session_id"])
    .where("org_id", "=", orgId)
    .where("device_id", "=", deviceId)
    .executeTakeFirstOrThrow();
  return { orgId, deviceId, epoch, sessionId };
}

/** The ids of sessions opened by {@link openDevice}, by device and epoch. */
const sessionIds = new Map<string, string>();

/**
 * The full name of a session opened by {@link openDevice}; for other sessions, a name that no
 * session has.
 */
export function sessionOf({ orgId, deviceId }: DeviceName, epoch: number): presence.SessionName {
  const sessionId = sessionIds.get(`${deviceId} ${epoch}`) ?? randomUUID();
  return { orgId, deviceId, epoch, sessionId };
}

/** A fleet worker of the org, as created by its first hello, and its session. */
export async function seedWorker(
  db: Db,
  options: {
    orgId?: string;
    kinds?: string[];
    replicaId?: string;
    tokenId?: string;
    installId?: string;
  } = {},
): Promise<{ worker: DeviceName; tokenId: string; installId: string; epoch: number; kinds: string[] }> {
  const org = await seedOrg(db, options.orgId);
  const kinds = options.kinds ?? [];
  const installId = options.installId ?? randomUUID();
  const tokenId =
    options.tokenId ??
    (await tokens.issue(db, { orgId: org, kind: "svc", label: "fleet", scopes: ["fleet:run"] })).token.id;
  const { deviceId } = await transaction(db, (tx) =>
    workers.enter(tx, {
      orgId: org,
      tokenId,
      installId,
      os: "linux",
      label: "worker",
      appVersion: "test",
      agentKinds: kinds,
      capabilities: [],
      maxConcurrency: 1,
      configProblem: "",
      upgrade: null,
      executors: [],
      workspaces: [],
      ttlMs: 60_000,
    }),
  );
  const worker = { orgId: org, deviceId };
  const { epoch } = await openDevice(db, worker, options.replicaId ? { replicaId: options.replicaId } : {});
  return { worker, tokenId, installId, epoch, kinds };
}

/** A claimed run, which also names its attempt. */
export type Claimed = runClaims.ClaimedRun & { workId: string };

export async function claim(
  db: Db,
  device: DeviceName,
  epoch: number,
  slots = 1,
  kinds: string[] | null = null,
): Promise<Claimed[]> {
  const runs = await runClaims.claim(db, [{ ...sessionOf(device, epoch), slots, kinds }]);
  return runs.map((run) => ({ ...run, workId: run.runId }));
}

export const accept = (db: Db, run: runClaims.ClaimedRun) =>
  attempts.accept(db, [{ ...run, workId: run.runId, pushedAgoMs: 0, acceptedAgoMs: 0 }]);

export async function triggerRun(db: Db, watcher: WatcherName): Promise<runs.RunRow> {
  const { run } = await trigger(db, { ...watcher, actor: "pinion" }, { doorbell: noteDoorbell() });
  return run;
}

/**
 * A device with an open session, a watcher pinned to the device, and a run that the device works
 * on.
 */
export async function seedRunning(
  db: Db,
  values: Partial<WatcherValues> = {},
): Promise<{ device: DeviceName; epoch: number; watcher: WatcherName; run: Claimed }> {
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  const watcher = await seedWatcher(db, device, values);
  const run = await startRun(db, { device, epoch, watcher });
  return { device, epoch, watcher, run };
}

/** Triggers, claims and accepts. */
export async function startRun(
  db: Db,
  who: { device: DeviceName; epoch: number; watcher: WatcherName },
): Promise<Claimed> {
  await triggerRun(db, who.watcher);
  const run = (await claim(db, who.device, who.epoch)).find(
    (claimed) => claimed.watcherId === who.watcher.watcherId,
  );
  if (!run) throw new Error("the run was not claimed");
  await accept(db, run);
  return run;
}

export function reportOf(
  run: Pick<runClaims.ClaimedRun, "orgId" | "deviceId" | "runId" | "attemptToken">,
  report: Partial<Report> = {},
): Report {
  return {
    orgId: run.orgId,
    deviceId: run.deviceId,
    workId: run.runId,
    attemptToken: run.attemptToken,
    status: "completed",
    output: "done",
    isOutputTruncated: false,
    exitCode: 0,
    signal: "",
    reason: "",
    durationMs: 5,
    ...report,
  };
}

export async function findRun(db: Db, run: { orgId: string; runId: string }): Promise<runs.RunRow> {
  const row = await runs.find(db, run);
  if (!row) throw new Error(`no run ${run.runId}`);
  return row;
}

/**
 * The runs of a watcher in the order of recording; within one pass, in the order of their slots.
 */
export const listRuns = async (db: Db, watcher: WatcherName): Promise<runs.RunRow[]> =>
  (await runs.list(db, { ...watcher, statuses: [], limit: 1_000 }))
    .reverse()
    .sort((a, b) => a.createdAt.getTime() - b.createdAt.getTime());

export const findWatcher = (db: Db, watcher: WatcherName) =>
  watchers.get(db, { orgId: watcher.orgId, watcher: watcher.watcherId });

export const listWindows = (db: Db, run: { runId: string }) =>
  db.selectFrom("window").selectAll().where("run_id", "=", run.runId).execute();

export async function listKinds(db: Db, subject: { runId?: string; watcherId?: string }): Promise<string[]> {
  let query = db.selectFrom("event").select("kind").orderBy("seq");
  if (subject.runId) query = query.where("run_id", "=", subject.runId);
  if (subject.watcherId) query = query.where("watcher_id", "=", subject.watcherId);
  return (await query.execute()).map((row) => row.kind);
}

/** Makes moments of a row as old as given, in milliseconds; null clears a moment. */
async function age(table: "run" | "presence", db: Db, key: string, ages: Record<string, number | null>) {
  const sets = Object.entries(ages).map(([column, ms]) =>
    ms === null ? sql`${sql.ref(column)} = null` : sql`${sql.ref(column)} = now() - ${ms} * interval '1 ms'`,
  );
  const name = table === "run" ? "id" : "device_id";
  await sql`update ${sql.table(table)} set ${sql.join(sets)} where ${sql.ref(name)} = ${key}`.execute(db);
}

/** For an aged claim, the run had been due at that time. */
export const ageRun = (db: Db, run: { runId: string }, ages: Record<string, number | null>) =>
  age("run", db, run.runId, "claimed_at" in ages ? { due_at: ages.claimed_at!, ...ages } : ages);

export const agePresence = (db: Db, device: DeviceName, ages: Record<string, number | null>) =>
  age("presence", db, device.deviceId, ages);
