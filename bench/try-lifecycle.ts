import { openCluster, query } from "./lib/cluster.ts";
import { openLifecycle, runLifecycle } from "./lifecycle.ts";

const cluster = await openCluster();
try {
  const bench = await openLifecycle(cluster, "lifecycle", {
    runs: Number(process.argv[2] ?? 20000),
    devices: Number(process.argv[3] ?? 1000),
    orgs: Number(process.argv[4] ?? 10),
  });
  for (let i = 0; i < 3; i++) {
    console.log(await runLifecycle(cluster, bench));
    console.log((await query(bench.url, "select status, count(*) from run_finished group by 1")).rows);
  }
  await bench.close();
} finally {
  await cluster.close();
}
process.exit(0);
