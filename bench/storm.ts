/**
 * A fleet whose server crashes: every device has a run under way when the only replica is killed
 * (`kill -9`) and started again. Measures the time until all streams are back, the load on the
 * database, and lost or doubled runs.
 */
import { createServer } from "node:net";
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { atMost } from "./lib/report.ts";
import { makeDue, seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";

const full = { devices: 5_000, orgs: 10 };
const smoke = { devices: 200, orgs: 5 };
const sweepMs = 2_000;
const dueInMs = 3_000;
const withinMs = 120_000;

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const url = await cluster.database("storm");
    await seedOrgs(url, options.orgs);
    const devices = await seedDevices(url, {
      ...{ count: options.devices, orgs: options.orgs, slots: 1 },
      tokenOf: () => newToken("dev"),
    });
    await seedWatchers(url, 1);
    const env = {
      DATABASE_URL: url,
      PINION_PORT: String(await freePort()),
      PINION_SWEEP_INTERVAL_MS: String(sweepMs),
    };
    const first = await startChild("replica.ts", env);
    const urls = [await first.ask<string>({ kind: "url" })];
    const load = await startChild("load.ts");
    await load.ask({
      ...{ kind: "connect", urls, devices, slots: 1, beatMs: 20_000 },
      ...{ isHolding: true, isReturning: true },
    });
    await makeDue(url, new Date(Date.now() + dueInMs));
    await untilCount(url, "select count(*)::int as count from run where status = 'running'", options.devices);

    const returned = load.ask<number>({ kind: "returned", withinMs });
    await first.kill("SIGKILL");
    const killedAt = Date.now();
    const statementsBefore = await statements(url);
    const second = await startChild("replica.ts", env);
    await second.ask({ kind: "url" });
    const startedAt = Date.now();
    const backAt = await returned;
    const statementsUsed = (await statements(url)) - statementsBefore;

    await load.ask({ kind: "reset" });
    await load.ask({ kind: "release" });
    await load.ask({ kind: "acknowledged", count: options.devices, withinMs });
    const { rows } = await query(
      url,
      `select count(*) filter (where status = 'completed' and attempt = 1)::int as completed,
        count(*)::int as runs, (select count(*)::int from "window") as windows,
        (select count(*)::int from run) as live from run_finished`,
    );
    const { completed, runs, windows, live } = rows[0] as Record<string, number>;
    await load.kill();
    await second.kill();
    return report(options, {
      servesSeconds: (startedAt - killedAt) / 1_000,
      backSeconds: (backAt - startedAt) / 1_000,
      statementsUsed,
      lost: options.devices - completed! + live!,
      doubled: Math.max(runs!, windows!) - options.devices,
    });
  } finally {
    await cluster.close();
  }
};

function report(
  options: typeof full,
  found: {
    servesSeconds: number;
    backSeconds: number;
    statementsUsed: number;
    lost: number;
    doubled: number;
  },
): Awaited<ReturnType<Bench>> {
  const { servesSeconds, backSeconds, statementsUsed, lost, doubled } = found;
  const perDevice = statementsUsed / options.devices;
  return {
    options,
    rows: [
      { "": "the replica serves again after, s", value: servesSeconds },
      { "": "all streams back, s after that", value: backSeconds },
      { "": "transactions until then", value: statementsUsed },
      { "": "transactions per device", value: perDevice },
      { "": "runs lost or not in their first attempt", value: lost },
      { "": "runs doubled", value: doubled },
    ],
    budgets: [
      atMost("all streams back, seconds", backSeconds, 8),
      atMost("transactions per device", perDevice, 2),
      atMost("runs lost", lost, 0),
      atMost("runs doubled", doubled, 0),
    ],
  };
}

async function statements(url: string): Promise<number> {
  const { rows } = await query(
    url,
    "select xact_commit::int as count from pg_stat_database where datname = current_database()",
  );
  return rows[0].count;
}

async function untilCount(url: string, text: string, count: number): Promise<void> {
  for (const deadline = Date.now() + withinMs; Date.now() < deadline; ) {
    if ((await query(url, text)).rows[0].count >= count) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`not ${count} in time: ${text}`);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
