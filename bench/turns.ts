/**
 * Many conversations at once; each message is sent after the answer to the previous message.
 * Measures turns per second, the wait of a reply for its acknowledgement, and the time until every
 * open turn has its reply after its worker's stream broke.
 */
import { newToken } from "../src/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { percentiles } from "./lib/percentiles.ts";
import { seedDevices, seedOrgs, seedServices } from "./lib/seed.ts";

const full = { orgs: 20, conversations: 50, turnsEach: 20 };
const smoke = { orgs: 4, conversations: 5, turnsEach: 3 };
const withinMs = 60_000;
const lookEveryMs = 5;

type Talked = { seconds: number; acks: number[]; brokenAt: number };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const url = await cluster.database("turns");
    await seedOrgs(url, options.orgs);
    const devices = await seedDevices(url, {
      count: options.orgs,
      orgs: options.orgs,
      slots: options.conversations,
      tokenOf: () => newToken("dev"),
    });
    await query(url, "update agent a set device_id = d.id from device d where d.org_id = a.org_id");
    const services = await seedServices(url, options.orgs, () => newToken("svc"));
    const replica = await startChild("replica.ts", { DATABASE_URL: url });
    const load = await startChild("callers.ts");
    const cpuOf = () => cpuSeconds(cluster.pid, { withChildren: true }) + cpuSeconds(replica.pid);
    const before = cpuOf();
    const { seconds, acks, brokenAt } = await load.ask<Talked>({
      ...{ kind: "talk", url: await replica.ask<string>({ kind: "url" }), services, devices },
      ...{ slots: options.conversations, conversations: options.conversations, turnsEach: options.turnsEach },
      ...{ agentId: "bench", isLeftOpen: true },
    });
    const turns = options.orgs * options.conversations * options.turnsEach;
    const cpu = ((cpuOf() - before) / turns) * 1_000;
    const endedMs = (await untilAllEnded(url)) - brokenAt;
    await load.kill();
    await replica.kill();
    const { p50, p99 } = percentiles(acks);
    return {
      options,
      rows: [
        { "": "turns a second", value: turns / seconds },
        { "": "reply to acknowledgement p50, ms", value: p50 },
        { "": "reply to acknowledgement p99, ms", value: p99 },
        { "": "server + PostgreSQL, s/1000", value: cpu },
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

/** The wall-clock time at which no turn was open any more. */
async function untilAllEnded(url: string): Promise<number> {
  for (const deadline = Date.now() + withinMs; Date.now() < deadline; ) {
    const { rows } = await query(url, "select exists (select from turn) as open");
    if (!rows[0].open) return Date.now();
    await new Promise((resolve) => setTimeout(resolve, lookEveryMs));
  }
  throw new Error("turns were left open");
}
