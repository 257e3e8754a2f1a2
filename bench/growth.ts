/**
 * Whether the cost of a run grows as the service gets older (ended runs, events) and larger
 * (watchers that are not due), and how long lists, pages and passes take there.
 */
import type { Bench } from "./lib/bench.ts";
import { type Cluster, openCluster } from "./lib/cluster.ts";
import * as grow from "./lib/grow.ts";
import { growRest } from "./lib/grow-rest.ts";
import { growRuns, settleRuns } from "./lib/grow-runs.ts";
import { createReaders, findFacts, type Listed, measureLists } from "./lib/grown-lists.ts";
import { measurePasses } from "./lib/grown-passes.ts";
import { atMost, type Row, shown } from "./lib/report.ts";
import { type LifecycleResult, openLifecycle, runLifecycle } from "./lifecycle.ts";

const full = {
  watchers: 200_000,
  endedRuns: [10_000_000],
  events: 10_000_000,
  smallOrgs: 990,
  grownDevices: 20_000,
  people: 2_000,
  runs: 5_000,
  devices: 500,
  rounds: 3,
  calls: 40,
};
const smoke: typeof full = {
  watchers: 1_000,
  endedRuns: [10_000],
  events: 10_000,
  smallOrgs: 5,
  grownDevices: 100,
  people: 20,
  runs: 500,
  devices: 50,
  rounds: 1,
  calls: 3,
};
const dearerMax = 0.1;
const listMsMax = 50;
/** What the other tables have, as a share of ten million runs. */
const fullRuns = 10_000_000;

type Options = typeof full;
type Opened = Awaited<ReturnType<typeof openLifecycle>>;

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "growth", { ...options, orgs: 10 });
    await runLifecycle(cluster, opened);
    const growing = await grow.startGrowing(opened.url);
    // Its connection would break with the cluster, and hide why the rest failed.
    const { rows, dearer } = await measureGrowth(growing, cluster, opened, options).finally(() =>
      growing.client.end(),
    );
    const lists = await measureReaders(opened, options);
    await opened.close();
    const passes = await measurePasses(opened.url);
    return {
      options,
      rows,
      budgets: [
        atMost("dearer with the most watchers, ended runs and events, %", dearer * 100, dearerMax * 100),
      ],
      also: { "growth-lists": listReport(options, lists), "growth-passes": passes },
    };
  } finally {
    await cluster.close();
  }
};

async function measureGrowth(growing: grow.Growing, cluster: Cluster, opened: Opened, options: Options) {
  const rows: Row[] = [];
  const cpus: number[] = [];
  const measure = async (what: string) => {
    const rounds: LifecycleResult[] = [];
    for (let round = 0; round < options.rounds; round++) rounds.push(await runLifecycle(cluster, opened));
    // The least disturbed round: other load of the machine only ever adds.
    const least = (of: (one: LifecycleResult) => number) => Math.min(...rounds.map(of));
    const cpu = least((one) => one.cpu.server + one.cpu.postgres);
    cpus.push(cpu);
    rows.push({
      "": what,
      "server s/1000": least((one) => one.cpu.server),
      "postgres s/1000": least((one) => one.cpu.postgres),
      "both s/1000": cpu,
      "of the smallest": `${shown(cpu / cpus[0]!)} ×`,
      "WAL KiB": least((one) => one.walKiB),
      "per second": Math.max(...rounds.map((one) => one.runsPerSecond)),
    });
  };
  await measure(`${shown(opened.watchers)} watchers, no ended runs`);
  await grow.carelessly(growing, async () => {
    await grow.growFleet(growing, { ...options, devices: options.grownDevices });
    await grow.growWatchers(growing, options.watchers - opened.watchers);
  });
  await measure(`${shown(options.watchers)} watchers`);
  for (const size of options.endedRuns) {
    await grow.carelessly(growing, async () => {
      await growRuns(growing, size - growing.runs);
      await settleRuns(growing);
    });
    await measure(`… and ${shown(size)} ended runs`);
  }
  await grow.carelessly(growing, async () => {
    await grow.growEvents(growing, options.events);
    await growRest(growing, growing.runs / fullRuns);
  });
  await measure(`… and ${shown(options.events)} events, turns, deliveries`);
  return { rows, dearer: cpus.at(-1)! / cpus[0]! - 1 };
}

async function measureReaders({ url, replicaUrl }: Opened, { calls }: Options) {
  const facts = await findFacts(url);
  const readers = await createReaders(url);
  const asked = { url: replicaUrl, facts, calls, atOnce: 2 };
  const owner = await measureLists({ ...asked, token: readers.owner });
  const member = await measureLists({ ...asked, token: readers.member });
  return { owner, member };
}

function listReport(options: Options, { owner, member }: { owner: Listed[]; member: Listed[] }) {
  const worst = (listed: Listed[]) => Math.max(...listed.map(({ p99 }) => p99));
  return {
    options: { calls: options.calls },
    rows: owner.map(({ name, p50, p99 }, index) => ({
      ms: name,
      "owner p50": p50,
      "owner p99": p99,
      "member p50": member[index]!.p50,
      "member p99": member[index]!.p99,
    })),
    budgets: [
      atMost("the slowest list's p99 for an owner, ms", worst(owner), listMsMax),
      atMost("the slowest list's p99 for a member, ms", worst(member), listMsMax),
    ],
  };
}
