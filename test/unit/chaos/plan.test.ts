import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { replaceOnce } from "../../chaos/mutate.ts";
import { mutations } from "../../chaos/mutations.ts";
import { type FaultKind, faultKinds, planFaults } from "../../chaos/plan.ts";

const options = { lengthMs: 600_000, replicas: 3, hosts: 4, ttlMs: 4_000, outageMsMax: 60_000, gapMs: 3_000 };

test("the same seed gives the same faults, another seed gives others", () => {
  expect(planFaults({ ...options, seed: 7 })).toEqual(planFaults({ ...options, seed: 7 }));
  expect(planFaults({ ...options, seed: 7 })).not.toEqual(planFaults({ ...options, seed: 8 }));
});

test("every kind of fault comes up, on targets that exist, and all are over in time", () => {
  const plan = planFaults({ ...options, seed: 7 });
  const count = (kind: FaultKind) => plan.filter((fault) => fault.kind === kind).length;
  const counts = faultKinds.map(count);
  expect(Math.min(...counts)).toBeGreaterThan(2);
  expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
  for (const { kind, target, atMs, durationMs } of plan) {
    expect(target).toBeLessThan(kind.startsWith("host") || kind === "disk_full" ? 4 : 3);
    expect(atMs + durationMs).toBeLessThanOrEqual(options.lengthMs);
    if (kind === "replica_pause" || kind === "host_pause") expect(durationMs).toBeGreaterThan(options.ttlMs);
  }
});

test("the faults of two minutes are of every kind", () => {
  const plan = planFaults({ ...options, lengthMs: 110_000, outageMsMax: 8_000, seed: 20_260_101 });
  expect(new Set(plan.map(({ kind }) => kind)).size).toBe(faultKinds.length);
});

test("every mutation meets the code that it is to break", () => {
  for (const { replacements } of mutations) {
    const texts = new Map<string, string>();
    for (const replacement of replacements) {
      const { file } = replacement;
      const text = texts.get(file) ?? readFileSync(new URL(`../../../${file}`, import.meta.url), "utf8");
      texts.set(file, replaceOnce(text, replacement));
    }
  }
  expect(mutations.length).toBeGreaterThan(5);
});

test("a mutation that does not meet its code any more is an error", () => {
  const replacement = { file: "a.ts", from: "lock", to: "" };
  expect(replaceOnce("take the lock", replacement)).toBe("take the ");
  expect(() => replaceOnce("take it", replacement)).toThrow("a.ts has 0 times");
  expect(() => replaceOnce("lock and lock", replacement)).toThrow("a.ts has 2 times");
});
