/**
 * `npm run chaos -- --seed S --minutes M [--devices N] [--workers N] [--replicas N] [--hosts N]
 * [--json FILE] [--evidence FILE] [--kinds KIND,KIND]`: random faults (of these kinds), and a check
 * of the whole history. Exits with 1 if a promise was broken.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { runChaos } from "./chaos.ts";
import { describe } from "./checker/check.ts";
import { type FaultKind, faultKinds } from "./plan.ts";
import type { Summary } from "./summary.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    minutes: { type: "string", default: "2" },
    devices: { type: "string", default: "60" },
    workers: { type: "string", default: "4" },
    replicas: { type: "string", default: "3" },
    hosts: { type: "string", default: "3" },
    gap: { type: "string", default: "3000" },
    outage: { type: "string" },
    kinds: { type: "string" },
    json: { type: "string" },
    evidence: { type: "string" },
  },
});

const seed = values.seed === undefined ? Math.trunc(Math.random() * 2 ** 31) : Number(values.seed);
const minutes = Number(values.minutes);
const numbers = [seed, minutes, values.devices, values.workers, values.replicas, values.hosts].map(Number);
if (numbers.some((number) => !Number.isFinite(number) || number < 0)) {
  console.error(
    "usage: npm run chaos -- [--seed S] [--minutes M] [--devices N] [--workers N] [--replicas N] [--hosts N] [--json FILE]",
  );
  process.exit(2);
}

const kinds = values.kinds?.split(",") as FaultKind[] | undefined;
const unknown = kinds?.find((kind) => !faultKinds.includes(kind));
if (unknown !== undefined) {
  console.error(`--kinds: there is no fault ${unknown}; the faults are ${faultKinds.join(", ")}`);
  process.exit(2);
}

const say = (text: string) => process.stdout.write(`${text}\n`);
const startedAt = performance.now();
const clock = () => {
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  return `${Math.trunc(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`.padStart(6);
};
say(
  `chaos: --seed ${seed} --minutes ${minutes} --devices ${values.devices} --workers ${values.workers} --replicas ${values.replicas} --hosts ${values.hosts}`,
);

const { summary, violations } = await runChaos({
  seed,
  replicas: Number(values.replicas),
  devices: Number(values.devices),
  workers: Number(values.workers),
  hosts: Number(values.hosts),
  callsPerSecond: 6,
  lengthMs: minutes * 60_000,
  gapMs: Number(values.gap),
  // The full minute only fits into long runs, beside all other faults.
  outageMsMax: values.outage === undefined ? (minutes >= 5 ? 60_000 : 8_000) : Number(values.outage),
  onProgress: (text) => say(`${clock()}  ${text}`),
  onFault: ({ kind, durationMs }) =>
    say(`${clock()}  ${kind}${durationMs > 0 ? ` for ${durationMs} ms` : ""}`),
  evidenceFile: values.evidence,
  ...(kinds ? { kinds } : {}),
});

say(`\n${tableOf(summary)}`);
if (values.json)
  writeFileSync(values.json, `${JSON.stringify({ seed, minutes, ...summary, violations }, null, 2)}\n`);
for (const violation of violations) say(`\nBROKEN  ${describe(violation)}`);
say(
  violations.length === 0
    ? "\nevery promise held"
    : `\n${violations.length} promises were broken; seed ${seed}`,
);
process.exit(violations.length === 0 ? 0 : 1);

function tableOf(one: Summary): string {
  const seconds = (ms: number | undefined) => (ms === undefined ? "–" : `${(ms / 1000).toFixed(1)} s`);
  const rows = one.faults.map(({ kind, count, worstRecoveryMs, worstAloneMs }) => [
    kind,
    String(count),
    seconds(worstRecoveryMs),
    seconds(worstAloneMs),
  ]);
  const faults = [["fault", "times", "worst recovery", "undisturbed"], ...rows].map(
    ([name, count, worst, alone]) =>
      `  ${name!.padEnd(22)}${count!.padStart(6)}${worst!.padStart(16)}${alone!.padStart(14)}`,
  );
  const statuses = Object.entries(one.byStatus)
    .map(([status, count]) => `${count} ${status}`)
    .join(", ");
  const lost = violations.filter(
    ({ rule }) => rule === "no result is lost" || rule === "every slot once",
  ).length;
  const doubled = violations.filter(
    ({ rule }) => /once|one /.test(rule) && rule !== "every slot once",
  ).length;
  return [
    ...faults,
    "",
    `  ${one.runs} runs (${statuses}) in ${one.attempts} attempts; lost ${lost}, doubled ${doubled}`,
    `  ${one.results} results, sent again ${one.resent} times; ${one.messages} messages of devices, ${one.calls} calls`,
    `  faults for ${seconds(one.faultsMs)}, ${seconds(one.tookMs)} in all`,
  ].join("\n");
}
