/**
 * Faults of all kinds over real processes. PINION_CHAOS_SEED=<seed> repeats a plan, and
 * PINION_CHAOS_EVIDENCE=<file> keeps the whole history; the longer runs are `npm run chaos`, see
 * docs/reliability.md.
 */
import { expect, inject, test } from "vitest";
import { isLong } from "../support/long.ts";
import { runChaos } from "./chaos.ts";
import { describe } from "./checker/check.ts";

const given = process.env.PINION_CHAOS_SEED;
const seed = given ? Number(given) : Math.trunc(Math.random() * 2 ** 31);
/**
 * Each kind of fault once, close together, in half a minute; in the long tests with more devices
 * and longer work, and with the pauses that let a fault's consequences end before the next fault.
 */
const size = isLong
  ? { lengthMs: 85_000, gapMs: 2_700, outageMsMax: 6_000, devices: 50, hosts: 3, workMsMax: 6_000 }
  : { lengthMs: 30_000, gapMs: 750, outageMsMax: 4_000, devices: 24, hosts: 2, workMsMax: 3_000 };
/** Ten times the length, for a machine with ten times the work. */
const patienceMs = 900_000;

test(
  "whatever fails, every slot is recorded once, every result is stored once, and nothing is left behind",
  async () => {
    process.stdout.write(`chaos: PINION_CHAOS_SEED=${seed}\n`);
    const { summary, violations } = await runChaos({
      seed,
      program: inject("pinionMain"),
      replicas: 3,
      callsPerSecond: 6,
      evidenceFile: process.env.PINION_CHAOS_EVIDENCE,
      ...size,
    });
    const { runs, byStatus, faults, results, resent, tookMs } = summary;
    const count = faults.reduce((sum, fault) => sum + fault.count, 0);
    process.stdout.write(
      `chaos: ${count} faults of ${faults.length} kinds, ${runs} runs ${JSON.stringify(byStatus)}, ` +
        `${results} results, ${resent} sent again, ${Math.round(tookMs / 1000)} s\n`,
    );
    expect(violations.map(describe).join("\n\n"), `seed ${seed}`).toBe("");
    // A run with few events proves little; a busy machine completes fewer runs.
    expect(faults.length).toBeGreaterThan(15);
    expect(byStatus.completed).toBeGreaterThan(30);
  },
  patienceMs,
);
