/**
 * `pinion orgs move` of a large org: the time without calls, and the memory of the command. No
 * replica runs, so the time is that of the copy, and of the grace for replicas.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { migrate } from "../src/store/pg/migrate.ts";
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { type Cluster, openCluster, query } from "./lib/cluster.ts";
import { peakKiB } from "./lib/cpu.ts";
import { atMost } from "./lib/report.ts";
import { addFinished, seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";

const full = { finished: 100_000, outputCharacters: 2_000, devices: 100 };
const smoke = { finished: 2_000, outputCharacters: 2_000, devices: 10 };
const lookEveryMs = 20;
/** The command's memory levels off: 178 MiB are in use, the rest is what was not collected yet. */
const memoryMiBMax = 450;
const main = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url));

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const [source, target] = [await openCell(cluster, "eu1"), await openCell(cluster, "eu2")];
    await seedOrgs(source, 1);
    const tokenOf = () => newToken("dev");
    await seedDevices(source, { count: options.devices, orgs: 1, tokenOf, slots: 1 });
    await seedWatchers(source, 1);
    await addFinished(source, options.finished, options.outputCharacters);
    const moved = await move(source, target);
    const { rows } = await query(
      source,
      "select sum(pg_total_relation_size(relid))::float8 as bytes from pg_partition_tree('run_finished')",
    );
    const copyMs = moved.fenced_ms;
    return {
      options,
      rows: [
        { "": "rows moved", value: moved.rows },
        { "": "ended runs and their indexes before, MiB", value: rows[0].bytes / 1024 ** 2 },
        { "": "without calls, s", value: copyMs / 1_000 },
        { "": "rows a second", value: moved.rows / (copyMs / 1_000) },
        { "": "most memory of the command, MiB", value: moved.peakKiB / 1_024 },
        { "": "lines of progress", value: moved.lines },
      ],
      budgets: [atMost("memory of the command, MiB", moved.peakKiB / 1_024, memoryMiBMax)],
    };
  } finally {
    await cluster.close();
  }
};

/** A cell's database, of a role that the fence binds. */
async function openCell(cluster: Cluster, name: string): Promise<string> {
  const url = new URL(await cluster.database(name, { isEmpty: true }));
  const isFirst = (await query(url.href, "select from pg_roles where rolname = 'mover'")).rowCount === 0;
  if (isFirst) await query(url.href, "create role mover login createrole password 'secret'");
  await query(url.href, `alter database ${name} owner to mover`);
  [url.username, url.password] = ["mover", "secret"];
  await migrate(url.href);
  await query(url.href, "insert into cell (name) values ($1)", [name]);
  return url.href;
}

type Moved = { rows: number; fenced_ms: number; peakKiB: number; lines: number };

async function move(source: string, target: string): Promise<Moved> {
  const child = spawn(process.execPath, [main, "orgs", "move", "org-0", "--to", "eu2", "--json"], {
    env: { ...process.env, DATABASE_URL: source, PINION_TO_DATABASE_URL: target },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, peakKiB(child.pid!));
  }, lookEveryMs);
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) lines.push(line);
  clearInterval(timer);
  const last = JSON.parse(lines.at(-1) ?? "{}") as Moved;
  if (last.rows === undefined) throw new Error(`the org was not moved: ${lines.at(-1)}`);
  return { ...last, peakKiB: most, lines: lines.length };
}
