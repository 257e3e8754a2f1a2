/**
 * Many conversations at once; each message is sent after the answer to the previous message.
 * Measures turns per second, the wait of a reply for its acknowledgement, and the time until every
 * open turn has its reply after its worker's stream broke.
 */
import pg from "pg";
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { startChild } from "./lib/children.ts";
import { type Cluster, openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { percentiles } from "./lib/percentiles.ts";
import { seedDevices, seedOrgs, seedServices } from "./lib/seed.ts";

type Options = { orgs: number; conversations: number; turnsEach: number };

const full = { orgs: 20, conversations: 50, turnsEach: 20 };
const smoke = { orgs: 4, conversations: 5, turnsEach: 3 };
const withinMs = 60_000;
const lookEveryMs = 5;

type Talked = { seconds: number; acks: number[]; says: number[] };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const { perSecond, acks, server, postgres, load, endedMs } = await measureTurns(cluster, options);
    return {
      options,
      rows: [
        { "": "turns a second", value: perSecond },
        { "": "reply to acknowledgement p50, ms", value: acks.p50 },
        { "": "reply to acknowledgement p99, ms", value: acks.p99 },
        { "": "server, s/1000", value: server },
        { "": "PostgreSQL, s/1000", value: postgres },
        { "": "server + PostgreSQL, s/1000", value: server + postgres },
        { "": "load, s/1000", value: load },
        {
          "": `all ${options.orgs * options.conversations} open turns answered after their streams broke, ms`,
          value: endedMs,
        },
      ],
      budgets: [],
    };
  } finally {
    await cluster.close();
  }
};

/**
 * Called before the conversations; the result is called after them, and after the end of the open
 * turns.
 */
type Watching = (url: string) => Promise<(what: string) => Promise<void>>;

export async function measureTurns(
  cluster: Cluster,
  options: Options,
  watching: Watching = async () => async () => {},
) {
  const url = await cluster.database("turns");
  const talk = await seed(url, options);
  const replica = await startChild("replica.ts", { DATABASE_URL: url }, execArgv());
  const load = await startChild("callers.ts");
  const cpuOf = () => ({
    server: cpuSeconds(replica.pid),
    postgres: cpuSeconds(cluster.pid, { withChildren: true }),
    load: cpuSeconds(load.pid),
  });
  const watched = await watching(url);
  const before = cpuOf();
  const { seconds, acks, says } = await load.ask<Talked>({
    ...{ kind: "talk", url: await replica.ask<string>({ kind: "url" }), ...talk },
  });
  const after = cpuOf();
  await watched("conversations");
  await load.ask({ kind: "hold" });
  const cut = cpuOf();
  const brokenAt = await load.ask<number>({ kind: "break" });
  const endedMs = (await untilAllEnded(url)) - brokenAt;
  const ended = cpuOf();
  await watched("the end of the open turns");
  await load.kill();
  // A profile is written by a process that ends by itself.
  if (execArgv().length > 0) await replica.ask({ kind: "stop" }).then(() => replica.leave());
  else await replica.kill();
  const open = options.orgs * options.conversations;
  const turns = open * options.turnsEach;
  const per1000 = (of: keyof typeof before) => ((after[of] - before[of]) / turns) * 1_000;
  return {
    ...{ perSecond: turns / seconds, acks: percentiles(acks), says: percentiles(says), endedMs },
    ...{ server: per1000("server"), postgres: per1000("postgres"), load: per1000("load") },
    sweep: ((ended.server - cut.server + ended.postgres - cut.postgres) / open) * 1_000,
  };
}

const execArgv = () => process.env.BENCH_EXEC_ARGV?.split(" ") ?? [];

/** Orgs with an agent that is pinned to the org's device; returns what the load has to know. */
async function seed(url: string, { orgs, conversations, turnsEach }: Options) {
  await seedOrgs(url, orgs);
  const devices = await seedDevices(url, {
    ...{ count: orgs, orgs, slots: conversations },
    tokenOf: () => newToken("dev"),
  });
  await query(url, "update agent a set device_id = d.id from device d where d.org_id = a.org_id");
  const services = await seedServices(url, orgs, () => newToken("svc"));
  return { services, devices, slots: conversations, conversations, turnsEach, agentId: "bench" };
}

/**
 * The wall-clock time at which no turn was open any more; asked on one connection, which costs
 * little.
 */
async function untilAllEnded(url: string): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const deadline = Date.now() + withinMs; Date.now() < deadline; ) {
      const { rows } = await client.query("select exists (select from turn) as open");
      if (!rows[0].open) return Date.now();
      await new Promise((resolve) => setTimeout(resolve, lookEveryMs));
    }
  } finally {
    await client.end();
  }
  throw new Error("turns were left open");
}
