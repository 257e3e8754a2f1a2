/**
 * `npm run bench -- NAME [--smoke] [--json FILE]`: runs one bench, or `all`, and prints the table.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Bench } from "./lib/bench.ts";
import { openCluster } from "./lib/cluster.ts";
import { machine, print, type Report } from "./lib/report.ts";

const benches = [
  "lifecycle",
  "latency",
  "fleet",
  "herd",
  "growth",
  "storm",
  "replicas",
  "costs",
  "small-herd",
  "soak",
  "turns",
  "in-and-out",
  "org-move",
  "cells",
] as const;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { smoke: { type: "boolean", default: false }, json: { type: "string" } },
});
const wanted = positionals[0] === "all" ? benches : benches.filter((name) => positionals.includes(name));
if (wanted.length === 0) {
  console.error(`usage: npm run bench -- ${benches.join("|")}|all [--smoke] [--json FILE]`);
  process.exit(2);
}

const references = fileURLToPath(new URL("references", import.meta.url));
const compared: readonly string[] = ["lifecycle", "latency"];
if (wanted.some((name) => compared.includes(name)) && !existsSync(`${references}/node_modules`)) {
  console.error("Installing what Pinion is compared with …");
  execFileSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: references, stdio: "inherit" });
}

const probe = await openCluster();
const postgres = probe.version;
await probe.close();
const reports: Report[] = [];
for (const name of wanted) {
  const before = machine(postgres);
  const { bench } = (await import(`./${name}.ts`)) as { bench: Bench };
  const { also = {}, ...result } = await bench({ isSmoke: values.smoke });
  for (const [bench, measured] of [[name, result] as const, ...Object.entries(also)]) {
    const report = { bench, at: new Date().toISOString(), machine: before, ...measured };
    print(report);
    reports.push(report);
  }
}
if (values.json) await writeFile(values.json, `${JSON.stringify(reports, null, 2)}\n`);
process.exit(0);
