/** Real processes whose replicas hear little or nothing of each other; no other fault. */
import { expect, test } from "vitest";
import { runChaos } from "./chaos.ts";
import { describe } from "./checker/check.ts";
import { waitsAbove } from "./checker/lateness.ts";
import { makeWorld } from "./checker/world.ts";
import { bounds } from "./rig/options.ts";

const patienceMs = 180_000;

test(
  "with notifications lost and LISTEN dropped, runs are late by at most the sweep and none is lost",
  async () => {
    const { history, rows, violations, summary } = await runChaos({
      seed: 1,
      replicas: 2,
      devices: 16,
      hosts: 1,
      callsPerSecond: 4,
      every: 10,
      workMsMax: 500,
      lengthMs: 30_000,
      gapMs: 1_000,
      outageMsMax: 0,
      // So that a replica hears nothing most of the time.
      durationFactor: 3,
      kinds: ["notifications_lost", "listen_dropped"],
    });
    const waits = waitsAbove(makeWorld(history, rows, bounds), 0).map(({ from, to }) => to - from);
    waits.sort((a, b) => a - b);
    const at = (share: number) => Math.round(waits[Math.ceil(share * waits.length) - 1]!);
    process.stdout.write(
      `dead bus: ${summary.faults.map(({ kind, count }) => `${count} ${kind}`).join(", ")}; ${waits.length} runs waited ` +
        `for a push for p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, max ${at(1)} ms; the sweep looks every ${bounds.sweepMs} ms\n`,
    );
    expect(violations.map(describe).join("\n\n")).toBe("");
    // A run with few events proves little: many runs were pushed, and some had to wait for the
    // sweep.
    expect(waits.length).toBeGreaterThan(50);
    expect(at(1)).toBeGreaterThan(bounds.sweepMs / 10);
  },
  patienceMs,
);
