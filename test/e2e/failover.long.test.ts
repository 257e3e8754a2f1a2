/**
 * A failover to an asynchronous standby that lagged, with real servers: acknowledged results that
 * are lost come back from the devices, once, and no program runs twice. Needs the
 * PostgreSQL of the distribution, and root to run it as its user.
 */
import { execFile, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { expect, onTestFinished, test, vi } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { migrate } from "../../src/store/pg/migrate.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { startDevice } from "../integration/client/harness.ts";
import { enrolDevice } from "../support/device.ts";
import { startTestReplica } from "../support/server.ts";
import { getRun, startWork } from "../support/work.ts";

const run = promisify(execFile);
const versions = "/usr/lib/postgresql";
const bin = existsSync(versions)
  ? readdirSync(versions)
      .filter((version) => Number(version) >= 15)
      .map((version) => join(versions, version, "bin"))
      .at(-1)
  : undefined;
const canRun = bin !== undefined && process.getuid?.() === 0 && spawnSync("id", ["postgres"]).status === 0;
if (!canRun)
  process.stdout.write("failover: no PostgreSQL of the distribution here, or not root; left out\n");

const asPostgres = (command: string, ...args: string[]) =>
  run("runuser", ["-u", "postgres", "--", join(bin!, command), ...args], { cwd: "/" });

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** One address that leads to the primary, in place of HAProxy. */
async function openFront(port: number): Promise<{ port: number; lead(to: number): void }> {
  let target = port;
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target, "127.0.0.1");
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const drop = () => {
    for (const socket of sockets) socket.destroy();
  };
  onTestFinished(() => {
    drop();
    server.close();
  });
  return {
    port: (server.address() as AddressInfo).port,
    lead(to) {
      target = to;
      drop();
    },
  };
}

test.skipIf(!canRun)(
  "what a lagging standby never received comes back from the devices, once",
  {
    timeout: 300_000,
  },
  async () => {
    const directory = mkdtempSync(join(tmpdir(), "pinion-failover-"));
    await run("chown", ["postgres", directory]);
    const [primary, standby] = [join(directory, "a"), join(directory, "b")];
    const [primaryPort, standbyPort] = [await freePort(), await freePort()];
    const start = (data: string, port: number) =>
      asPostgres(
        ...["pg_ctl", "-D", data, "-w", "-l", `${data}.log`, "start"],
        ...["-o", `-p ${port} -k ${directory} -c listen_addresses=127.0.0.1 -c max_connections=100`],
      );
    onTestFinished(async () => {
      for (const data of [primary, standby])
        await asPostgres("pg_ctl", "-D", data, "-m", "immediate", "stop").catch(() => {});
      rmSync(directory, { recursive: true, force: true });
    });
    await asPostgres("initdb", "-D", primary, "-A", "trust", "-U", "postgres", "-N");
    await start(primary, primaryPort);
    await asPostgres("createdb", "-h", "127.0.0.1", "-p", String(primaryPort), "pinion");
    const address = ["-h", "127.0.0.1", "-p", String(primaryPort)];
    await asPostgres(
      "pg_basebackup",
      "-D",
      standby,
      ...address,
      "-U",
      "postgres",
      "-R",
      "-X",
      "stream",
      "-c",
      "fast",
      "-N",
    );
    await start(standby, standbyPort);

    const front = await openFront(primaryPort);
    const url = `postgres://postgres@127.0.0.1:${front.port}/pinion`;
    await migrate(url, createLogger({ name: "test", level: "silent" }));
    const replica = await startTestReplica(url);
    const { clients } = replica;
    const identity = await enrolDevice(clients);
    let programs = 0;
    const { events } = startDevice(replica.url, {
      token: identity.token,
      installId: identity.installId,
      maxConcurrency: 4,
      onAssignment: async () => {
        programs += 1;
        return { outcome: "completed", output: `program ${programs}` };
      },
    });
    const done: string[] = [];
    const complete = async (count: number) => {
      for (let i = 0; i < count; i++) {
        const { id } = await startWork(clients, identity);
        done.push(id);
        await events.next("acknowledged", (event) => event.workId === id);
      }
    };
    await complete(3);
    // A watcher that is replicated to the standby; all later rows are lost.
    const { watcher } = await clients.watchers.createWatcher({
      spec: { name: "Again", prompt: "do it", deviceId: identity.deviceId },
    });
    const direct = new pg.Client({ connectionString: url.replace(String(front.port), String(primaryPort)) });
    direct.on("error", () => {});
    await direct.connect();
    await vi.waitFor(
      async () => {
        const { rows } = await direct.query(
          "select pg_current_wal_lsn() = replay_lsn as same from pg_stat_replication",
        );
        expect(rows).toEqual([{ same: true }]);
      },
      { timeout: 20_000 },
    );
    await asPostgres("pg_ctl", "-D", standby, "-m", "immediate", "stop");
    const { run: lost } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    await events.next("acknowledged", (event) => event.workId === lost!.id);
    done.push(lost!.id);
    expect((await getRun(clients, { workId: lost!.id })).status).toBe(RunStatus.COMPLETED);

    const postmaster = Number(readFileSync(join(primary, "postmaster.pid"), "utf8").split("\n")[0]);
    const failedAt = performance.now();
    process.kill(postmaster, "SIGKILL");
    await start(standby, standbyPort);
    await asPostgres("pg_ctl", "-D", standby, "-w", "promote");
    front.lead(standbyPort);

    for (const runId of done) {
      await vi.waitFor(
        async () =>
          expect(await getRun(clients, { workId: runId })).toMatchObject({ status: RunStatus.COMPLETED }),
        { timeout: 60_000, interval: 200 },
      );
    }
    process.stdout.write(
      `failover: all results are back after ${Math.round(performance.now() - failedAt)} ms\n`,
    );
    const now = new pg.Client({ connectionString: url });
    now.on("error", () => {});
    await now.connect();
    const { rows } = await now.query(
      'select count(*)::int as windows, count(distinct run_id)::int as runs from "window"',
    );
    await now.end();
    await direct.end().catch(() => {});
    expect(rows).toEqual([{ windows: done.length, runs: done.length }]);
    expect(programs).toBe(done.length);
    // And further runs complete.
    await complete(1);
  },
);
