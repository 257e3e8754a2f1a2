/**
 * R4, the other half: an unpinned run goes to one fleet worker at a time, and never to a device.
 */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import { reapOnce } from "../../../src/scheduler/endings/reaper.ts";
import { openSession } from "../../../src/server/device/reconcile/reconcile.ts";
import { transaction } from "../../../src/store/pg/database.ts";
import * as attempts from "../../../src/store/work/attempts/attempts.ts";
import * as runClaims from "../../../src/store/work/runs/run-claims.ts";
import { useDatabase } from "../../support/database.ts";
import { hold } from "../../support/locks.ts";
import {
  accept,
  agePresence,
  ageRun,
  claim,
  findRun,
  listKinds,
  openDevice,
  orgId,
  reapRules,
  reportOf,
  seedDevice,
  seedOrg,
  seedWatcher,
  seedWorker,
  sessionOf,
  triggerRun,
} from "../../support/rows.ts";
import { policy, storeOnce } from "../../support/surroundings.ts";

const database = useDatabase();

/** A pending unpinned run. */
async function seedUnpinned(values: Parameters<typeof seedWatcher>[2] = {}) {
  const { db } = database;
  const org = await seedOrg(db);
  return triggerRun(db, await seedWatcher(db, { orgId: org, deviceId: "" }, { deviceId: null, ...values }));
}

const claimAs = (
  { worker, epoch, kinds }: Awaited<ReturnType<typeof seedWorker>>,
  slots = 1,
  db = database.db,
) => claim(db, worker, epoch, slots, kinds);

test("R4: two workers on two replicas claim at once, and an unpinned run is one worker's", async () => {
  const { db } = database;
  const first = await seedWorker(db, { replicaId: "replica-1" });
  const second = await seedWorker(db, { replicaId: "replica-2" });
  const run = await seedUnpinned();
  await using one = await hold(db);
  await using two = await hold(db);
  const got = await claimAs(first, 1, one.tx);
  // The first claim is not committed yet, so the second claim meets its lock.
  const other = await claimAs(second, 1, two.tx);
  await one.commit();
  await two.commit();
  expect([got.length, other.length]).toEqual([1, 0]);
  expect(await claimAs(second)).toEqual([]);
  expect(await findRun(db, { orgId, runId: run.id })).toMatchObject({
    status: "claimed",
    attempt: 1,
    deviceId: first.worker.deviceId,
  });
});

test("R4: a worker whose first choice another replica holds takes the next one instead of nothing", async () => {
  const { db } = database;
  const first = await seedWorker(db);
  const second = await seedWorker(db);
  await seedUnpinned();
  const later = await seedUnpinned();
  await using one = await hold(db);
  await claimAs(first, 1, one.tx);
  expect(await claimAs(second)).toMatchObject([{ runId: later.id }]);
  await one.commit();
});

test("R4: a pinned run is never a worker's, not even while its device is offline", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const run = await triggerRun(db, await seedWatcher(db, device));
  const fleet = await seedWorker(db);
  expect(await claimAs(fleet, 64)).toEqual([]);
  const { epoch } = await openDevice(db, device);
  expect(await claim(db, device, epoch)).toMatchObject([{ runId: run.id }]);
});

test("R4: an unpinned run is never a device's, whatever its session asks for", async () => {
  const { db } = database;
  const device = await seedDevice(db);
  const { epoch } = await openDevice(db, device);
  await seedUnpinned();
  expect(await claim(db, device, epoch, 64)).toEqual([]);
  // Not even if the replica took the session for a worker's.
  expect(await claim(db, device, epoch, 64, [])).toEqual([]);
});

test("R4: another org's worker takes nothing", async () => {
  const { db } = database;
  await seedUnpinned();
  await seedOrg(db, "elsewhere");
  expect(await claimAs(await seedWorker(db, { orgId: "elsewhere" }), 64)).toEqual([]);
});

test("R4: a worker takes what asks for no agent kind or for one that it offers, and leaves the rest", async () => {
  const { db } = database;
  const codex = await seedUnpinned({ agentKind: "codex" });
  const claude = await seedUnpinned({ agentKind: "claude-code" });
  const any = await seedUnpinned();
  const ids = async (kinds: string[]) =>
    (await claimAs(await seedWorker(db, { kinds }), 64)).map((run) => run.runId);
  expect(await ids(["claude-code"])).toEqual([claude.id, any.id]);
  expect(await ids([])).toEqual([]);
  expect(await ids(["shell", "codex"])).toEqual([codex.id]);
});

test("a claim does not read past what waits for kinds that nobody offers", async () => {
  const { db } = database;
  const nobodys = await seedUnpinned({ agentKind: "codex" });
  const mine = await seedUnpinned({ agentKind: "claude-code" });
  await sql`
    insert into run select x.* from run r cross join generate_series(1, 5000) n
      cross join lateral jsonb_populate_record(r, jsonb_build_object('id', uuid_v7(), 'watcher_id', uuid_v7(), 'attempt', n * 0)) x
    where r.id = ${nobodys.id}
  `.execute(db);
  await sql`update run set due_at = now() where id = ${mine.id}`.execute(db);
  await sql`vacuum analyze run`.execute(db);
  const worker = await seedWorker(db, { kinds: ["claude-code"] });
  await transaction(db, async (tx) => {
    // Includes the earlier reads of the connection.
    const countRead = async () => {
      const { rows } = await sql<{ read: number }>`
        select (seq_tup_read + idx_tup_fetch)::int as read from pg_stat_xact_user_tables where relname = 'run'
      `.execute(tx);
      return rows[0]?.read ?? 0;
    };
    const before = await countRead();
    expect(await claimAs(worker, 8, tx)).toMatchObject([{ runId: mine.id }]);
    expect((await countRead()) - before).toBeLessThan(500);
  });
});

test("a lost attempt moves from one worker to another, and the first one's late result is superseded", async () => {
  const { db } = database;
  const first = await seedWorker(db);
  const run = await seedUnpinned({ maxAttempts: 2 });
  const [lost] = await claimAs(first);
  await accept(db, lost!);
  await agePresence(db, first.worker, {
    connected_at: 90_000,
    last_beat_at: 90_000,
    disconnected_at: 90_000,
  });
  await ageRun(db, lost!, { claimed_at: 90_000 });
  expect(await reapOnce(db, { rules: reapRules, policy })).toMatchObject([
    { runId: run.id, action: "retried", isPinned: false, deviceId: first.worker.deviceId },
  ]);
  expect(await findRun(db, { orgId, runId: run.id })).toMatchObject({ status: "pending", deviceId: null });

  await ageRun(db, lost!, { not_before: 1 });
  const second = await seedWorker(db);
  const [taken] = await claimAs(second);
  expect(taken).toMatchObject({ runId: run.id, attempt: 2, deviceId: second.worker.deviceId });
  expect(await attempts.accept(db, [{ ...lost!, pushedAgoMs: 0, acceptedAgoMs: 0 }])).toEqual(["gone"]);
  const late = reportOf(lost!, { output: "late" });
  expect(await storeOnce(db, [late], policy)).toMatchObject({ verdicts: [{ verdict: "superseded" }] });
  // The same report from a worker that never had the attempt is ignored.
  expect(await storeOnce(db, [{ ...late, deviceId: second.worker.deviceId }], policy)).toMatchObject({
    verdicts: [{ verdict: "unknown" }],
  });
  await accept(db, taken!);
  expect(await storeOnce(db, [reportOf(taken!)], policy)).toMatchObject({
    verdicts: [{ verdict: "stored" }],
  });
  expect(await storeOnce(db, [late], policy)).toMatchObject({ verdicts: [{ verdict: "superseded" }] });
  expect((await listKinds(db, { runId: run.id })).filter((kind) => kind === "run.completed")).toHaveLength(1);
});

test("a worker that comes back with its attempt goes on with it; with another's it is told to stop", async () => {
  const { db } = database;
  const first = await seedWorker(db);
  const second = await seedWorker(db);
  await seedUnpinned();
  const [run] = await claimAs(first);
  await accept(db, run!);
  const held = [{ ...run!, state: HeldAttemptState.RUNNING }];
  const hello = (device: typeof first.worker) =>
    transaction(db, (tx) =>
      openSession(tx, { ...device, replicaId: "replica-1", held, policy, ttlMs: 60_000 }),
    );
  expect(await hello(second.worker)).toMatchObject({ continuing: [] });
  expect(await hello(first.worker)).toMatchObject({ continuing: [{ workId: run!.runId }] });
});

test("a claim deals an org's runs out to its workers in turn, each run once, oldest first", async () => {
  const { db } = database;
  const fleet = await Promise.all([1, 2, 3].map(() => seedWorker(db)));
  const slots = [1, 2, 3];
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) ids.push((await seedUnpinned()).id);
  const wants = fleet.map(({ worker, epoch, kinds }, i) => ({
    ...sessionOf(worker, epoch),
    kinds,
    slots: slots[i]!,
  }));
  const got = await runClaims.claim(db, wants);
  expect(got.map((run) => run.runId)).toEqual(ids);
  const counts = fleet.map(({ worker }) => got.filter((run) => run.deviceId === worker.deviceId).length);
  // The emptiest worker first: three free slots, then two, and the last place of the worker with
  // one slot stays for the sixth run.
  expect(counts.reduce((sum, count) => sum + count)).toBe(5);
  for (const [i, count] of counts.entries()) expect(count).toBeLessThanOrEqual(slots[i]!);
  expect(counts[2]).toBeGreaterThanOrEqual(2);
  expect(await runClaims.claim(db, wants)).toEqual([]);
});

test("workers of one org that offer different kinds are claimed for apart, and others together", () => {
  const want = (org: string, kinds: string[] | null) => ({
    orgId: org,
    deviceId: "",
    epoch: 1,
    sessionId: "",
    slots: 1,
    kinds,
  });
  const a = want("a", ["x", "y"]);
  const aAgain = want("a", ["y", "x"]);
  const aOther = want("a", ["z"]);
  const b = want("b", ["z"]);
  const device = want("a", null);
  expect(runClaims.partsOf([a, aAgain, aOther, b, device, device])).toEqual([
    [a, aAgain, b, device, device],
    [aOther],
  ]);
});

test("a claim of a thousand workers of twenty orgs deals each run once", { timeout: 60_000 }, async () => {
  const { db } = database;
  const wants: runClaims.Want[] = [];
  for (let o = 0; o < 20; o++) {
    const org = await seedOrg(db, `many-${o}`);
    const { worker, tokenId, epoch } = await seedWorker(db, { orgId: org });
    wants.push({ ...sessionOf(worker, epoch), slots: 2, kinds: [] });
    // Fifty workers of each, as their hellos would leave them.
    const rows = await db
      .insertInto("device")
      .values(
        Array.from({ length: 49 }, (_, i) => ({
          org_id: org,
          install_id: `install-${i}`,
          os: "linux",
          label: `w${i}`,
          is_worker: true,
          token_id: tokenId,
        })),
      )
      .returning("id")
      .execute();
    const sessions = await db
      .insertInto("presence")
      .values(rows.map(({ id }) => ({ org_id: org, device_id: id, epoch: 1, replica_id: "replica-1" })))
      .returning(["org_id as orgId", "device_id as deviceId", "epoch", "session_id as sessionId"])
      .execute();
    wants.push(...sessions.map((session) => ({ ...session, slots: 2, kinds: [] })));
    for (let i = 0; i < 3; i++) {
      await triggerRun(db, await seedWatcher(db, { orgId: org, deviceId: "" }, { deviceId: null }));
    }
  }
  const got = await runClaims.claim(db, wants);
  expect(new Set(got.map((run) => run.runId)).size).toBe(60);
  expect(got).toHaveLength(60);
  // With room for all, no worker gets two.
  expect(new Set(got.map((run) => run.deviceId)).size).toBe(60);
});
