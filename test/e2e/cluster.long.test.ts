/**
 * Pinion on a database with failover (docs/operations.md): Patroni with etcd and HAProxy, a
 * synchronous and an asynchronous standby. Devices work all the while; every acknowledged result is
 * stored afterwards, once.
 */
import pg from "pg";
import { afterEach, describe, expect, test, vi } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { migrate } from "../../src/store/pg/migrate.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { startDevice } from "../integration/client/harness.ts";
import { enrolDevice } from "../support/device.ts";
import { isLong } from "../support/long.ts";
import { type Cluster, missingPatroni, startCluster } from "../support/patroni.ts";
import { startTestReplica } from "../support/server.ts";
import { getRun } from "../support/work.ts";

/** The interval of triggers, in ms. */
const everyMs = 50;

/** A replica and a device at work on a cluster, with a record of all events. */
async function startWorking(cluster: Cluster) {
  await migrate(cluster.url, createLogger({ name: "test", level: "silent" }));
  const { url, clients } = await startTestReplica(cluster.url, { PINION_HEARTBEAT_TTL_MS: "60000" });
  const identity = await enrolDevice(clients);
  const begun = new Map<string, number>();
  const begunAt: number[] = [];
  const { events } = startDevice(url, {
    token: identity.token,
    installId: identity.installId,
    maxConcurrency: 16,
    onAssignment: async ({ workId }) => {
      begun.set(workId, (begun.get(workId) ?? 0) + 1);
      begunAt.push(performance.now());
      return { outcome: "completed", output: `the answer of ${workId}` };
    },
  });
  // Enough watchers that a free watcher exists at any time: a watcher has one run at once.
  const watchers = await Promise.all(
    Array.from({ length: 32 }, async (_, index) => {
      const spec = { name: `Work ${index}`, prompt: "do it", deviceId: identity.deviceId };
      return (await clients.watchers.createWatcher({ spec })).watcher!;
    }),
  );
  let next = 0;
  const asking = new Set<Promise<unknown>>();
  const timer = setInterval(() => {
    const watcherId = watchers[next++ % watchers.length]!.id;
    const call = clients.watchers.triggerWatcher({ watcherId }, { timeoutMs: 5_000 }).catch(() => {});
    asking.add(call);
    void call.finally(() => asking.delete(call));
  }, everyMs);
  const acknowledged = () => events.of("acknowledged").map(({ workId }) => workId);

  return {
    clients,
    /** Waits until so many more results than now were acknowledged. */
    async work(count: number): Promise<void> {
      const before = acknowledged().length;
      await vi.waitFor(() => expect(acknowledged().length).toBeGreaterThanOrEqual(before + count), {
        timeout: 60_000,
        interval: 50,
      });
    },
    /** The longest time without a new program since `from`, in ms. */
    worstPauseMs(from: number): number {
      const times = [from, ...begunAt.filter((at) => at >= from), performance.now()];
      return Math.max(...times.slice(1).map((at, index) => at - times[index]!));
    },
    /** Stops asking for runs, and compares the acknowledged results with the stored ones. */
    async account(): Promise<{ acknowledged: number; back: number }> {
      clearInterval(timer);
      await Promise.all(asking);
      const told = [...new Set(acknowledged())];
      const back = events.of("acknowledged").length - told.length;
      for (const runId of told) {
        await vi.waitFor(
          async () =>
            expect(await getRun(clients, { workId: runId })).toMatchObject({ status: RunStatus.COMPLETED }),
          { timeout: 60_000, interval: 200 },
        );
      }
      const database = new pg.Client({ connectionString: cluster.url });
      await database.connect();
      const { rows } = await database.query<{ run_id: string; windows: number; output: string }>(
        `select run_id, count(*)::int as windows, min(extracted_data ->> 'stdout') as output from "window" group by run_id`,
      );
      await database.end();
      const stored = new Map(rows.map((row) => [row.run_id, row]));
      expect(told.filter((runId) => stored.get(runId)?.windows !== 1)).toEqual([]);
      expect([...begun].filter(([, times]) => times > 1)).toEqual([]);
      return { acknowledged: told.length, back };
    },
    stop: () => clearInterval(timer),
  };
}

const note = (text: string) => process.stdout.write(`cluster: ${text}\n`);

describe.skipIf(!isLong || missingPatroni())("a cluster of Patroni", () => {
  let cluster: Cluster | undefined;
  afterEach(() => cluster?.stop(), 60_000);

  test("a synchronous standby: switchover, kill -9 and a partition lose and double nothing", {
    timeout: 600_000,
  }, async () => {
    cluster = await startCluster({ isSynchronous: true });
    const work = await startWorking(cluster);
    const disturb = async (name: string, fault: () => Promise<void>) => {
      await cluster!.untilWhole();
      await work.work(50);
      const from = performance.now();
      await fault();
      await work.work(50);
      note(`${name}: worst pause of pushes ${Math.round(work.worstPauseMs(from))} ms`);
    };
    await disturb("switchover", () => cluster!.switchover());
    await disturb("switchover back", () => cluster!.switchover());
    await disturb("partition of the primary", async () => {
      // The first node leads again, and is cut off from etcd and its standby while clients still
      // reach the node.
      expect(await cluster!.primary()).toBe("a");
      cluster!.partition.close();
      await cluster!.untilLedByAnother("a");
      cluster!.partition.open();
    });
    await disturb("kill -9 of the postmaster", async () => {
      const former = await cluster!.killPrimary();
      await cluster!.untilLedByAnother(former);
    });
    const { acknowledged, back } = await work.account();
    note(`synchronous: ${acknowledged} acknowledged, 0 lost, 0 doubled, ${back} acknowledged again`);
  });

  test("an asynchronous standby that lags: what it never received comes back from the devices", {
    timeout: 600_000,
  }, async () => {
    cluster = await startCluster({ isSynchronous: false });
    const work = await startWorking(cluster);
    await cluster.untilWhole();
    await work.work(50);
    expect(await cluster.primary()).toBe("a");
    cluster.replication.close();
    await work.work(50);
    const from = performance.now();
    const former = await cluster.killPrimary();
    await cluster.untilLedByAnother(former);
    cluster.replication.open();
    await work.work(50);
    note(`asynchronous, kill -9: worst pause of pushes ${Math.round(work.worstPauseMs(from))} ms`);
    const { acknowledged, back } = await work.account();
    expect(back).toBeGreaterThan(0);
    note(`asynchronous: ${acknowledged} acknowledged, 0 lost, 0 doubled, ${back} came back from the device`);
  });
});
