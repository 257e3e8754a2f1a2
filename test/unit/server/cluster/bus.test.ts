import { expect, test } from "vitest";
import { type BusBatch, createBusSender, readEnvelope } from "../../../../src/server/cluster/bus.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

type Message = { kind: string; text: string };

/** A sender whose batches the test releases one at a time. */
function start(payloadBytesMax = 1_000) {
  const batches: BusBatch[] = [];
  let release: () => void = () => {};
  const sender = createBusSender<Message>({
    from: "me",
    payloadBytesMax,
    log: createLogger({ level: "silent", name: "test" }),
    publish(batch) {
      batches.push(batch);
      return new Promise((resolve) => {
        release = resolve;
      });
    },
  });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  return {
    sender,
    turn,
    batches,
    async next() {
      release();
      await turn();
    },
    texts: (index: number, channel: string) =>
      batches[index]
        ?.get(channel)
        ?.flatMap((payload) => readEnvelope<Message>(payload)!.messages.map((m) => m.text)),
  };
}

test("what comes while a batch is under way goes with the next one, control before output", async () => {
  const { sender, next, turn, texts, batches } = start();
  sender.enqueue("a", { kind: "work", text: "1" });
  await turn();
  sender.enqueue("a", { kind: "output", text: "o" });
  sender.enqueue("a", { kind: "work", text: "2" });
  sender.enqueue("b", { kind: "work", text: "3" });
  await next();
  await next();
  await next();
  expect(batches).toHaveLength(3);
  expect(texts(0, "a")).toEqual(["1"]);
  expect([texts(1, "a"), texts(1, "b")]).toEqual([["2"], ["3"]]);
  expect(texts(2, "a")).toEqual(["o"]);
  await sender.idle();
});

test("what waits has a bound: 50,000 messages of control and a mebibyte of output", async () => {
  const { sender, next, turn, batches, texts } = start(7_900);
  sender.enqueue("a", { kind: "work", text: "first" });
  await turn();
  for (let index = 0; index < 60_000; index += 1) sender.enqueue("a", { kind: "work", text: String(index) });
  for (let index = 0; index < 3_000; index += 1) {
    sender.enqueue("a", { kind: "output", text: `${index} ${"x".repeat(1_000)}` });
  }
  await next();
  await next();
  expect(batches).toHaveLength(3);
  expect(texts(1, "a")).toHaveLength(50_000);
  const bytes = texts(2, "a")!.join("").length;
  expect(bytes).toBeGreaterThan(900_000);
  expect(bytes).toBeLessThan(1_100_000);
});

test("no payload is larger than it may be, and a message that cannot fit is left out", async () => {
  const { sender, turn, batches, texts } = start(1_000);
  sender.enqueue("a", { kind: "work", text: "é".repeat(600) });
  for (let index = 0; index < 50; index += 1)
    sender.enqueue("a", { kind: "work", text: `${index} ${"é".repeat(100)}` });
  await turn();
  const payloads = batches[0]!.get("a")!;
  expect(Math.max(...payloads.map((payload) => Buffer.byteLength(payload)))).toBeLessThanOrEqual(1_000);
  expect(texts(0, "a")).toHaveLength(50);
});
