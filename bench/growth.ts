/**
 * Whether the cost of a run grows as the service gets older (finished runs) and larger (watchers
 * that are not due).
 */
import type { Bench } from "./lib/bench.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { atMost, type Row, shown } from "./lib/report.ts";
import { addFinished } from "./lib/seed.ts";
import { type LifecycleResult, openLifecycle, runLifecycle } from "./lifecycle.ts";

const full = {
  finished: [0, 100_000, 1_000_000, 5_000_000],
  watchers: [1_000, 10_000, 100_000],
  runs: 5_000,
  devices: 500,
  rounds: 3,
};
const smoke = { finished: [0, 10_000], watchers: [1_000, 2_000], runs: 500, devices: 50, rounds: 1 };
const dearerMax = 0.1;

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "growth", { ...options, orgs: 10 });
    await runLifecycle(cluster, opened);
    const rows: Row[] = [];
    const costs: { of: string; size: number; cpu: number }[] = [];
    const measure = async (of: string, size: number) => {
      const rounds: LifecycleResult[] = [];
      for (let round = 0; round < options.rounds; round++) rounds.push(await runLifecycle(cluster, opened));
      // The least disturbed round: other load of the machine only ever adds.
      const cpu = Math.min(...rounds.map((one) => one.cpu.server + one.cpu.postgres));
      costs.push({ of, size, cpu });
      const least = costs.find((one) => one.of === of)!.cpu;
      rows.push({
        "": of,
        count: size,
        "server + postgres s/1000": cpu,
        "of the smallest": `${shown(cpu / least)} ×`,
        "per second": Math.max(...rounds.map((one) => one.runsPerSecond)),
      });
    };
    let finished = 0;
    for (const size of options.finished) {
      await addFinished(opened.url, size - finished);
      finished = size;
      await measure("finished runs", size);
    }
    let watchers = opened.watchers;
    for (const size of options.watchers) {
      await addWatchers(opened.url, Math.max(0, size - watchers));
      watchers = Math.max(size, watchers);
      await measure("watchers", watchers);
    }
    await opened.close();
    const dearer = (of: string) => {
      const all = costs.filter((one) => one.of === of).map((one) => one.cpu);
      return (all.at(-1)! / all[0]! - 1) * 100;
    };
    return {
      options,
      rows,
      budgets: [
        atMost("dearer with the most finished runs, %", dearer("finished runs"), dearerMax * 100),
        atMost("dearer with the most watchers, %", dearer("watchers"), dearerMax * 100),
      ],
    };
  } finally {
    await cluster.close();
  }
};

/** Watchers that are not due, pinned to the existing devices, like paused watchers. */
async function addWatchers(url: string, count: number): Promise<void> {
  if (count <= 0) return;
  await query(
    url,
    `with made as (
      insert into watcher (org_id, slug, name, agent_id, device_id, schedule, status)
      select d.org_id, 'idle-' || gen_random_uuid(), 'idle', 'bench', d.id, '0 0 1 1 *', 'paused'
      from generate_series(1, $1::int) i
        join (select *, row_number() over (order by id) - 1 as ord from device) d
          on d.ord = i % (select count(*) from device)
      returning org_id, id
    ), positions as (
      insert into schedule_position (org_id, watcher_id) select org_id, id from made
    ) insert into watcher_revision (org_id, watcher_id, version, name, prompt)
    select org_id, id, 1, 'idle', 'Say hello' from made`,
    [count],
  );
  await query(url, "vacuum analyze watcher");
}
