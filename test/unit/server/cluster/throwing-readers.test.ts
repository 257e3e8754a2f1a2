/**
 * An error in one reader or viewer ends nothing else: the bus, the feed, the publisher and a loop
 * go on.
 */
import { expect, test, vi } from "vitest";
import { createBatcher } from "../../../../src/batches/batcher.ts";
import { startLoop } from "../../../../src/scheduler/loop.ts";
import { createPublisher } from "../../../../src/scheduler/publisher.ts";
import { createFeed } from "../../../../src/server/cluster/feed.ts";
import { createInbox } from "../../../../src/server/cluster/inbox.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const log = createLogger({ name: "test", level: "silent" });
const fails = () => {
  throw new Error("a defect");
};

test("a reader of the bus that throws loses its message alone", () => {
  const errors = vi.spyOn(log, "error");
  const inbox = createInbox({ log });
  const taken: string[] = [];
  inbox.add({ receive: ({ kind }) => kind === "held" && fails(), onResync: fails });
  inbox.add({
    receive: ({ kind }) => taken.push(kind) > 0,
    onResync: () => void taken.push("resync"),
  });
  inbox.onMessage({ kind: "held", orgId: "local" });
  inbox.onMessage({ kind: "fleet", of: "run", orgId: "local" });
  inbox.onResync();
  expect(taken).toEqual(["fleet", "resync"]);
  expect(errors).toHaveBeenCalledTimes(2);
  errors.mockRestore();
});

test("a viewer that throws fails neither the device's output nor the other viewers", () => {
  const bus = { send() {}, broadcast() {}, isUp: () => true, close: async () => {} };
  const feed = createFeed({ bus, replicaId: "r", log });
  const run = { orgId: "local", workId: "run" };
  const heard: bigint[] = [];
  let changes = 0;
  feed.watchWork(run, { onChange: fails, onOutput: fails });
  feed.watchWork(run, {
    onChange: () => void changes++,
    onOutput: ({ sequence }) => void heard.push(sequence),
  });
  feed.subscribe("local", fails);
  feed.subscribe("local", () => void changes++);
  feed.output({ ...run, deviceId: "d", attempt: 1, sequence: 1n, stream: 1, data: Buffer.from("x") });
  feed.workChanged({ ...run, isEnded: false });
  feed.wakeAll();
  expect(heard).toEqual([1n]);
  expect(changes).toBe(3);
  feed.close();
});

test("a subscriber that throws keeps no other from the announcement", () => {
  const publisher = createPublisher({ log });
  let told = 0;
  publisher.subscribe({ deviceOpened: fails });
  publisher.subscribe({ deviceOpened: () => void told++ });
  publisher.deviceOpened("local");
  expect(told).toBe(1);
});

test("a pass that throws is repeated, and a batch that throws rejects its own items", async () => {
  let passes = 0;
  const done = Promise.withResolvers<void>();
  const loop = startLoop({
    name: "test",
    log,
    async pass() {
      passes += 1;
      if (passes === 1) fails();
      done.resolve();
      return 60_000;
    },
  });
  await done.promise;
  await loop.stop();
  const batcher = createBatcher<string, string>({
    run: async (items) => (items.includes("bad") ? fails() : items),
    ...{ itemsMax: 1, queueMax: 10, overflow: () => new Error("full") },
  });
  const added = ["good", "bad", "good"].map((item) => batcher.add(item));
  expect((await Promise.allSettled(added)).map(({ status }) => status)).toEqual([
    ...["fulfilled", "rejected", "fulfilled"],
  ]);
});
