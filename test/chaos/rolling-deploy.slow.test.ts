/** All replicas are replaced, one after the other, while schedules fire and people trigger runs. */
import { expect, inject, test } from "vitest";
import { check, describe } from "./checker/check.ts";
import { realNow } from "./clock.ts";
import { bounds } from "./rig/options.ts";
import { openRig } from "./rig/rig.ts";

const patienceMs = 240_000;
const deploysMsMin = 15_000;
/**
 * Devices of a stopping replica come back within 1 s, a quarter of the TTL; a busy machine needs
 * more time.
 */
const dueToFrameMsMax = 15_000;

test(
  "a rolling deploy fails no run, starts none twice and makes none late by more than a reconnect",
  async () => {
    const rig = await openRig({
      seed: 1,
      program: inject("pinionMain"),
      replicas: 3,
      devices: 30,
      hosts: 2,
      callsPerSecond: 2,
      every: 5,
      workMsMax: 800,
      isReliable: true,
      hasStandby: false,
    });
    try {
      const startedAt = realNow();
      // So long that many runs become due: one deploy takes 3 s on a quiet machine.
      while (realNow() - startedAt < deploysMsMin) {
        for (const replica of rig.replicas) {
          await replica.stop();
          await replica.start();
          await rig.connected();
        }
      }
      const endedAt = realNow();
      await rig.settle();
      const { history, rows } = await rig.finish();
      expect(check(history, rows, bounds).map(describe).join("\n\n")).toBe("");

      const failed = rows.runs.filter(({ status }) => status === "failed" || status === "timeout");
      expect(failed).toEqual([]);
      const begun = new Map<string, number>();
      for (const entry of history) {
        if (entry.kind === "work" && entry.phase === "begun") {
          begun.set(entry.run, (begun.get(entry.run) ?? 0) + 1);
        }
      }
      expect([...begun].filter(([, times]) => times > 1)).toEqual([]);

      const dueAt = new Map(rows.runs.map(({ id, dueAt }) => [id, dueAt]));
      const framedAt = new Map<string, number>();
      for (const entry of history) {
        if (entry.kind !== "seen" || entry.message.case !== "assignment") continue;
        const { run } = entry.message;
        if (!framedAt.has(run)) framedAt.set(run, entry.at);
      }
      const waits = [...framedAt]
        .map(([run, at]) => ({ due: dueAt.get(run)!, ms: at - dueAt.get(run)! }))
        .filter(({ due }) => due >= startedAt && due <= endedAt)
        .map(({ ms }) => ms)
        .sort((a, b) => a - b);
      const at = (share: number) => Math.round(waits[Math.ceil(share * waits.length) - 1]!);
      process.stdout.write(
        `rolling deploy: ${waits.length} runs became due in ${Math.round((endedAt - startedAt) / 1000)} s; ` +
          `due to frame p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms\n`,
      );
      expect(waits.length).toBeGreaterThan(30);
      expect(at(0.99)).toBeLessThan(dueToFrameMsMax);
    } finally {
      await rig.close();
    }
  },
  patienceMs,
);
