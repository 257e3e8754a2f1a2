import { createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import { setTimeout as delay } from "node:timers/promises";
import { check } from "./checker/check.ts";
import type { Violation } from "./checker/world.ts";
import type { Entry } from "./history.ts";
import { type Fault, type FaultKind, faultKinds, planFaults } from "./plan.ts";
import { inject } from "./rig/faults.ts";
import { bounds, type RigOptions } from "./rig/options.ts";
import { openRig } from "./rig/rig.ts";
import type { Rows } from "./rows.ts";
import { type Summary, summarize } from "./summary.ts";

export type ChaosOptions = RigOptions & {
  /** The duration of the faults; settling afterwards takes additional time. */
  lengthMs: number;
  gapMs: number;
  outageMsMax: number;
  kinds?: readonly FaultKind[];
  durationFactor?: number;
  onFault?: (fault: Fault) => void;
  /** The file for the history, the rows and the violations. */
  evidenceFile?: string | undefined;
};

export type ChaosResult = { summary: Summary; violations: Violation[]; history: Entry[]; rows: Rows };

/**
 * Runs the rig with the faults determined by the seed, and checks the resulting history and rows.
 */
export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const startedAt = performance.now();
  const plan = planFaults({
    seed: options.seed,
    lengthMs: options.lengthMs,
    replicas: options.replicas,
    hosts: options.hosts,
    ttlMs: bounds.ttlMs,
    outageMsMax: options.outageMsMax,
    gapMs: options.gapMs,
    ...(options.kinds ? { kinds: options.kinds } : {}),
    ...(options.durationFactor ? { durationFactor: options.durationFactor } : {}),
  });
  // The standby doubles the work of the database.
  const hasStandby = (options.kinds ?? faultKinds).includes("database_failover");
  const rig = await openRig({ hasStandby, ...options });
  try {
    const faultsFrom = performance.now();
    // The work goes on for the whole time, even if the plan is over early.
    await Promise.all([
      inject(rig, plan, new AbortController().signal, options.onFault),
      delay(options.lengthMs),
    ]);
    const faultsMs = performance.now() - faultsFrom;
    await rig.settle();
    const { history, rows } = await rig.finish();
    const violations = check(history, rows, bounds);
    if (options.evidenceFile) {
      const evidence = evidenceOf({ history, rows, violations });
      await pipeline(evidence, createWriteStream(options.evidenceFile)).catch((error: unknown) =>
        options.onProgress?.(`the evidence could not be written: ${String(error)}`),
      );
    }
    const summary = summarize({ history, rows, faultsMs, messages: rig.messages, calls: rig.calls });
    return { summary: { ...summary, tookMs: performance.now() - startedAt }, violations, history, rows };
  } finally {
    await rig.close();
  }
}

/** One JSON object, a line for each entry: the text of a long run may be longer than a string. */
function* evidenceOf({ history, rows, violations }: Omit<ChaosResult, "summary">): Generator<string> {
  yield `{"rows":${JSON.stringify(rows)},\n"violations":${JSON.stringify(violations)},\n"history":[`;
  for (const [index, entry] of history.entries()) yield `${index === 0 ? "" : ","}\n${JSON.stringify(entry)}`;
  yield "]}\n";
}
