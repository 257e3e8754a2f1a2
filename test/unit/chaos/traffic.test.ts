/** The checker's rules about hooks, chains and deliveries, each with the smallest violation. */
import { expect, test } from "vitest";
import { checkChains, checkDeliveries, checkHooks } from "../../chaos/checker/traffic.ts";
import { makeWorld } from "../../chaos/checker/world.ts";
import type { Entry, Happening } from "../../chaos/history.ts";
import type { Rows, RunRow } from "../../chaos/rows.ts";
import type { TrafficRows } from "../../chaos/traffic.ts";

const bounds = { ttlMs: 4_000, silentAttemptMs: 8_000, slackMs: 2_000, sweepMs: 3_000, pushSlackMs: 1_000 };
const at = (ms: number, happening: Happening): Entry => ({ at: ms, ...happening });

const run = (id: string, watcher: string, status: RunRow["status"] = "completed"): RunRow => ({
  ...{ id, org: "north", watcher, device: "device-1", source: "hook", scheduledFor: null, dueAt: 0, status },
  ...{ token: null, claimedAt: null, finishedAt: 10, retryOf: null, isReported: false, windowId: null },
  ...{ skipReason: null, reason: "", past: [] },
});

const good: TrafficRows = {
  starts: [
    { run: "r1", watcher: "hooked", hookDelivery: "d1", after: null, isRetry: false },
    { run: "r2", watcher: "follower", hookDelivery: null, after: "r1", isRetry: false },
  ],
  hookDeliveries: [{ id: "d1", hook: "h", key: "k", outcome: "started", run: "r1" }],
  deliveries: [
    { id: "m1", watcher: "hooked", run: "r1", kind: "run.completed", seq: 1, state: "delivered" },
    { id: "m2", watcher: "hooked", run: "r3", kind: "run.failed", seq: 2, state: "delivered" },
  ],
  followers: [{ watcher: "follower", after: "hooked" }],
  told: ["hooked"],
};
const message = (ms: number, delivery: string, ofRun: string, status = 200) =>
  at(ms, { kind: "received", delivery, run: ofRun, watcher: "hooked", status });
const history: Entry[] = [
  at(1, { kind: "posting", hook: "h", key: "k" }),
  at(2, { kind: "posted", hook: "h", key: "k", run: "r1" }),
  at(3, { kind: "posted", hook: "h", key: "k", run: "r1" }),
  message(20, "m1", "r1", 500),
  message(21, "m1", "r1"),
  message(22, "m2", "r3"),
];

function world(traffic: Partial<TrafficRows> = {}, entries = history) {
  const runs = [run("r1", "hooked"), run("r2", "follower"), run("r3", "hooked", "failed")];
  const none = { events: [], windows: [], late: [], slots: [], backlog: [], watchers: [], devices: [] };
  return makeWorld(entries, { ...none, runs, traffic: { ...good, ...traffic } } as unknown as Rows, bounds);
}

test("a delivery that started one run, its follower, and its messages pass", () => {
  for (const rule of [checkHooks, checkChains, checkDeliveries]) expect(rule(world())).toBeUndefined();
});

test("two answers with two runs, an unknown delivery, and a delivery with two runs are noticed", () => {
  const again = at(4, { kind: "posted", hook: "h", key: "k", run: "r2" });
  expect(checkHooks(world({}, [...history, again]))?.what).toMatch(/run r1, and again with run r2/);
  expect(checkHooks(world({ hookDeliveries: [] }))?.what).toMatch(/does not know it/);
  const starts = [...good.starts, { ...good.starts[0]!, run: "r3" }];
  expect(checkHooks(world({ starts }))?.what).toMatch(/started run r1 and run r3/);
});

test("a follower that was not started, twice, or by a failure is noticed", () => {
  expect(checkChains(world({ starts: [good.starts[0]!] }))?.what).toMatch(
    /started its follower follower 0 times/,
  );
  const twice = [...good.starts, { ...good.starts[1]!, run: "r3" }];
  expect(checkChains(world({ starts: twice }))?.what).toMatch(/2 times/);
  const early = [...good.starts, { ...good.starts[1]!, run: "r4", after: "r3" }];
  expect(checkChains(world({ starts: early }))?.what).toMatch(/follows run r3, which is failed/);
});

test("a message that is missing, not taken, unknown, or out of order is noticed", () => {
  expect(checkDeliveries(world({ deliveries: [good.deliveries[0]!] }, history.slice(0, -1)))?.what).toMatch(
    /run r3 is failed, and no message says so/,
  );
  expect(checkDeliveries(world({}, history.slice(0, -1)))?.what).toMatch(/m2 .* was not taken/);
  expect(checkDeliveries(world({}, [...history, message(23, "m3", "r3")]))?.what).toMatch(/does not know it/);
  const swapped = [...history.slice(0, 3), message(20, "m2", "r3"), message(21, "m1", "r1")];
  expect(checkDeliveries(world({}, swapped))?.what).toMatch(/m2 .* before message m1, which is older/);
});
