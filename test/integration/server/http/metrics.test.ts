/** The metrics for Prometheus, scraped from real replicas. */
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import { AttentionReason } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { OverlapPolicy } from "#gen/pinion/v1/watcher_pb.js";
import { attentionNames } from "../../../../src/server/enums.ts";
import { attentionReasons } from "../../../../src/telemetry/metrics.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { startFaultProxy } from "../../../support/fault-proxy.ts";
import { scrape } from "../../../support/metrics.ts";
import { startTestReplica } from "../../../support/server.ts";
import { startWork, takeOn, untilStatus } from "../../../support/work.ts";

const database = useDatabase();

test("every reason for attention has a series of its own", () => {
  expect(attentionReasons).toEqual(Object.values(attentionNames));
});

test("a run that is pushed, accepted and stored is counted at each step, and its tenant is named nowhere", async () => {
  const replica = await startTestReplica(database.url);
  const { clients } = replica;
  const device = await enrolDevice(clients);
  const stream = await connect(replica.url, device);
  const run = await startWork(clients, device);
  const assignment = await takeOn(stream);
  const { sample: during } = await scrape(replica);
  expect(during("pinion_devices_connected")).toBe(1);
  expect(during("pinion_attempts_out")).toBe(1);
  expect(during("pinion_runs_active", { state: "pending" })).toBe(0);
  const { workId, attemptToken } = assignment;
  const attention = [AttentionReason.REFUSAL];
  stream.send({ case: "complete", value: { workId, attemptToken, outcome: Outcome.COMPLETED, attention } });
  await untilStatus(clients, { workId: run.id }, RunStatus.COMPLETED);

  const { text, sample } = await scrape(replica);
  expect(sample("pinion_due_to_frame_seconds_count")).toBe(1);
  expect(sample("pinion_due_to_frame_seconds_sum")).toBeLessThan(5);
  expect(sample("pinion_complete_to_ack_seconds_count")).toBe(1);
  expect(sample("pinion_runs_created_total")).toBe(1);
  expect(sample("pinion_runs_settled_total", { status: "completed" })).toBe(1);
  expect(sample("pinion_runs_attention_total", { reason: "refusal" })).toBe(1);
  for (const kind of ["claims", "acceptances", "completions", "beats"]) {
    await vi.waitFor(
      async () =>
        expect((await scrape(replica)).sample("pinion_batch_size_count", { kind })).toBeGreaterThan(0),
      { timeout: 10_000 },
    );
  }
  expect(sample("pinion_rpcs_total", { rpc: "pinion.v1.WatcherService/TriggerWatcher", code: "ok" })).toBe(1);
  expect(sample("pinion_database_up")).toBe(1);
  expect(sample("pinion_bus_up")).toBe(1);
  expect(sample("pinion_serving")).toBe(1);
  expect(sample("pinion_database_connections", { pool: "work", state: "idle" })).toBeGreaterThan(0);
  expect(sample("pinion_database_waiting", { pool: "requests" })).toBe(0);
  expect(sample("pinion_event_loop_lag_seconds", { quantile: "0.99" })).toBeGreaterThanOrEqual(0);
  expect(sample("process_resident_memory_bytes")).toBeGreaterThan(1_000_000);
  expect(sample("pinion_build_info", { version: "0.1.0", node: process.version })).toBe(1);
  for (const name of [run.id, run.watcherId, device.deviceId, "local"]) expect(text).not.toContain(name);
});

test("active runs and the oldest pending one are the whole database's, and say whether their device is there", async () => {
  const [here, elsewhere] = await Promise.all([
    startTestReplica(database.url),
    startTestReplica(database.url),
  ]);
  const connected = await enrolDevice(elsewhere.clients);
  const away = await enrolDevice(elsewhere.clients);
  const stream = await connect(elsewhere.url, connected, { maxConcurrency: 1 });
  const running = await startWork(elsewhere.clients, connected);
  await takeOn(stream);
  await untilStatus(elsewhere.clients, { workId: running.id }, RunStatus.RUNNING);
  const waiting = await startWork(elsewhere.clients, connected);
  const offline = await startWork(elsewhere.clients, away);
  await sql`update run set due_at = now() - interval '50 seconds' where id = ${waiting.id}`.execute(
    database.db,
  );
  await sql`update run set due_at = now() - interval '1 hour' where id = ${offline.id}`.execute(database.db);
  const { sample } = await scrape(here);
  expect(sample("pinion_runs_active", { state: "pending" })).toBe(2);
  expect(sample("pinion_runs_active", { state: "running" })).toBe(1);
  expect(sample("pinion_run_pending_oldest_seconds", { device: "connected" })).toBeCloseTo(50, -1);
  expect(sample("pinion_run_pending_oldest_seconds", { device: "away" })).toBeCloseTo(3600, -2);
  expect(sample("pinion_run_pending_oldest_seconds", { device: "none" })).toBe(0);
  expect(sample("pinion_devices_connected")).toBe(0);
});

test("the numbers of the database are read at most every five seconds, however often somebody scrapes", async () => {
  const replica = await startTestReplica(database.url);
  const device = await enrolDevice(replica.clients);
  expect((await scrape(replica)).sample("pinion_runs_active", { state: "pending" })).toBe(0);
  await startWork(replica.clients, device);
  expect((await scrape(replica)).sample("pinion_runs_active", { state: "pending" })).toBe(0);
  await vi.waitFor(
    async () => expect((await scrape(replica)).sample("pinion_runs_active", { state: "pending" })).toBe(1),
    { timeout: 8_000, interval: 250 },
  );
});

test("an open transaction shows in its age", async () => {
  const replica = await startTestReplica(database.url);
  await database.db.transaction().execute(async (tx) => {
    await sql`select txid_current(), pg_sleep(1.2)`.execute(tx);
    const { sample } = await scrape(replica);
    expect(sample("pinion_database_transaction_oldest_seconds")).toBeGreaterThan(1);
  });
});

test("/metrics answers while the database is away, without the numbers that only the database has", async () => {
  const url = new URL(database.url);
  const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port || 5432) });
  onTestFinished(() => proxy.close());
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  const replica = await startTestReplica(url.href);
  expect((await scrape(replica)).sample("pinion_database_up")).toBe(1);
  proxy.set({ onConnect: "reset" });
  proxy.reset();
  await vi.waitFor(
    async () => {
      const startedAt = performance.now();
      const { sample } = await scrape(replica);
      expect(performance.now() - startedAt).toBeLessThan(4_000);
      expect(sample("pinion_database_up")).toBe(0);
      expect(sample("pinion_bus_up")).toBe(0);
      expect(sample("pinion_serving")).toBe(0);
      expect(sample("pinion_runs_active", { state: "pending" })).toBeUndefined();
      expect(sample("pinion_database_transaction_oldest_seconds")).toBeUndefined();
      expect(sample("pinion_devices_connected")).toBe(0);
    },
    { timeout: 15_000, interval: 200 },
  );
});

test("skips are counted by reason, reaps by rule, and ends of streams by cause", async () => {
  const replica = await startTestReplica(database.url, { PINION_HEARTBEAT_TTL_MS: "2000" });
  const { clients } = replica;
  const device = await enrolDevice(clients);
  const stream = await connect(replica.url, device, { maxConcurrency: 2 });
  // A slot that is due while the watcher's run is active.
  const run = await startWork(clients, device, { schedule: "0 9 * * *", overlap: OverlapPolicy.SKIP });
  await takeOn(stream);
  await sql`update schedule_position set next_slot_at = now(), next_due_at = now() where watcher_id = ${run.watcherId}`.execute(
    database.db,
  );
  await clients.watchers.createWatcher({ spec: { name: "wakes the materializer", prompt: "x" } });
  await vi.waitFor(
    async () =>
      expect((await scrape(replica)).sample("pinion_runs_skipped_total", { reason: "overlap" })).toBe(1),
    { timeout: 20_000, interval: 100 },
  );
  // The device's stream breaks, and the device stays away.
  stream.cancel();
  await vi.waitFor(
    async () => {
      const { text, sample } = await scrape(replica);
      const causes = text.split("\n").filter((line) => /^pinion_stream_ends_total.* 1$/.test(line));
      // The recorded cause of a cancelled stream depends on which event is read first.
      expect(causes).toEqual([expect.stringMatching(/cause="(stream_broken|stream_failed|device_left)"/)]);
      expect(sample("pinion_reaps_total", { rule: "stream_broken" })).toBe(1);
      expect(sample("pinion_runs_settled_total", { status: "timeout" })).toBe(1);
      expect(sample("pinion_reaps_total", { rule: "silent" })).toBe(0);
    },
    { timeout: 15_000, interval: 100 },
  );
});

test("what waited for its device, or for a slot of it, was not pushed late", async () => {
  const replica = await startTestReplica(database.url);
  const device = await enrolDevice(replica.clients);
  const longDue = async (run: { id: string }) =>
    sql`update run set due_at = now() - interval '1 hour' where id = ${run.id}`.execute(database.db);
  await longDue(await startWork(replica.clients, device));
  const stream = await connect(replica.url, device, { maxConcurrency: 1 });
  const freeAt = performance.now();
  const first = await takeOn(stream);
  await longDue(await startWork(replica.clients, device));
  const heldMs = 1_500;
  while (performance.now() - freeAt < heldMs) await stream.beat([first]);
  await stream.complete(first);
  await takeOn(stream);
  const { sample } = await scrape(replica);
  expect(sample("pinion_due_to_frame_seconds_count")).toBe(2);
  expect(sample("pinion_due_to_frame_seconds_sum")).toBeLessThan(heldMs / 1000);
});

test("what a pinned device had free for long was pushed late when it was", async () => {
  const replica = await startTestReplica(database.url, { PINION_SWEEP_INTERVAL_MS: "1500" });
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  const freeAt = performance.now();
  const { watcher } = await replica.clients.watchers.createWatcher({
    spec: { name: "unheard", prompt: "x", deviceId: device.deviceId },
  });
  // Written directly to the database, so that no notification is sent and only the sweep finds the
  // row.
  await sql`
    insert into run (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification,
      source, window_start, window_end, due_at, timeout_ms, max_attempts, is_pinned)
    select org_id, gen_random_uuid(), id, version, agent_id, 1, device_id, agent_kind, notification, 'manual',
      now() - interval '1 hour', now(),
      now() - interval '20 minutes', timeout_ms, max_attempts, true
    from watcher where id = ${watcher!.id}`.execute(database.db);
  const writtenAt = performance.now();
  await takeOn(stream);
  const { sample } = await scrape(replica);
  // Not the 20 minutes, but since the device is there and free; the sweep comes every 1.5 s.
  expect(sample("pinion_due_to_frame_seconds_sum")).toBeGreaterThan((writtenAt - freeAt) / 1000);
  expect(sample("pinion_due_to_frame_seconds_sum")).toBeLessThan(15);
});

test("an attempt that two heartbeats do not list is counted as lost by its device", async () => {
  const replica = await startTestReplica(database.url);
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  await startWork(replica.clients, device);
  await takeOn(stream);
  // The first heartbeat may arrive during the write of its accept, and then does not count.
  await vi.waitFor(
    async () => {
      await stream.beat([]);
      expect((await scrape(replica)).sample("pinion_reaps_total", { rule: "not_listed" })).toBe(1);
    },
    { timeout: 10_000, interval: 20 },
  );
});

test("a failure is counted by its status", async () => {
  const replica = await startTestReplica(database.url);
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  await startWork(replica.clients, device);
  await stream.complete(await takeOn(stream), "", Outcome.FAILED, "broke");
  const { sample } = await scrape(replica);
  expect(sample("pinion_runs_settled_total", { status: "failed" })).toBe(1);
  expect(sample("pinion_runs_settled_total", { status: "completed" })).toBe(0);
});

test("with PINION_METRICS_TOKEN nobody scrapes without it", async () => {
  const token = "a-token-of-prometheus";
  const replica = await startTestReplica(database.url, { PINION_METRICS_TOKEN: token });
  const ask = (headers: Record<string, string>) => fetch(`${replica.url}/metrics`, { headers });
  expect((await ask({})).status).toBe(401);
  expect((await ask({ authorization: "Bearer wrong" })).status).toBe(401);
  expect((await ask({ authorization: `Bearer ${replica.token}` })).status).toBe(401);
  const answer = await ask({ authorization: `Bearer ${token}` });
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
});
