import { expect, onTestFinished, test, vi } from "vitest";
import { KnownOrgs } from "../../../../src/scheduler/placing/placer.ts";

test("a replica that heard of an org's gated runs knows the org until its next gated run is announced", () => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const here = new KnownOrgs(() => {});
  const there = new KnownOrgs((orgId) => here.hear(orgId));
  there.remember("acme");
  // The run is placed here, and no other is left.
  here.forget("acme");
  here.forget("acme");
  vi.advanceTimersByTime(9_000);
  // Not announced: the last announcement is 9 s old.
  there.remember("acme");
  expect(here.has("acme")).toBe(true);
  vi.advanceTimersByTime(4_000);
  expect(here.has("acme")).toBe(false);
  there.remember("acme");
  expect(here.has("acme")).toBe(true);
});
