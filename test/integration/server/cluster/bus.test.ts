/** The guarantees of both kinds of bus for replicas: the same tests for each. */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import type { Bus, BusMessage } from "../../../../src/server/cluster/bus.ts";
import { type BusRig, busKinds, missing, startBusRig } from "../../../support/bus.ts";
import { useDatabase } from "../../../support/database.ts";
import { type FaultProxy, startFaultProxy } from "../../../support/fault-proxy.ts";

const work = (deviceId: string): BusMessage => ({ kind: "work", of: "run", orgId: "local", deviceId });

for (const kind of busKinds) {
  describe.skipIf(missing(kind))(`the bus over ${kind}`, () => {
    const database = useDatabase({ per: "file" });
    let rig: BusRig;
    let count = 0;
    const opened: Bus[] = [];
    beforeAll(async () => {
      rig = await startBusRig(kind, database);
    });
    afterEach(async () => {
      await Promise.all(opened.splice(0).map((bus) => bus.close()));
    });
    afterAll(() => rig.close());

    /** A replica's end of the bus, behind a proxy if need be. */
    async function join(
      options: { proxy?: FaultProxy; heartbeatMs?: number; onMessage?: (message: BusMessage) => void } = {},
    ) {
      const replicaId = `replica-${++count}`;
      const heard: BusMessage[] = [];
      let resyncs = 0;
      const bus = await rig.open({
        replicaId,
        ...(options.proxy ? { port: options.proxy.port } : {}),
        ...(options.heartbeatMs ? { heartbeatMs: options.heartbeatMs } : {}),
        handlers: {
          onMessage(message) {
            heard.push(message);
            options.onMessage?.(message);
          },
          onResync() {
            resyncs += 1;
          },
        },
      });
      opened.push(bus);
      return { replicaId, bus, heard, resyncs: () => resyncs };
    }

    async function faulty(): Promise<FaultProxy> {
      const proxy = await startFaultProxy({ port: rig.port });
      onTestFinished(() => proxy.close());
      return proxy;
    }

    test("what is sent to a replica is heard by that one, and what is for all by all but the sender", async () => {
      const [a, b, c] = [await join(), await join(), await join()];
      a.bus.send(b.replicaId, work("for b"));
      a.bus.broadcast(work("for all"));
      b.bus.send(a.replicaId, work("for a"));
      await vi.waitFor(() => {
        expect(b.heard).toHaveLength(2);
        expect(c.heard).toEqual([work("for all")]);
        expect(a.heard).toEqual([work("for a")]);
      });
      // Two channels have no order between them.
      expect(b.heard).toEqual(expect.arrayContaining([work("for b"), work("for all")]));
    });

    test("a burst arrives whole and in order, in few payloads, and repeats count once", async () => {
      // A line that is replaced loses what is on its way.
      const patient = { heartbeatMs: 30_000 };
      const [a, b] = [await join(patient), await join(patient)];
      const payloads: string[] = [];
      const stop = await rig.overhear(b.replicaId, (payload) => payloads.push(payload));
      const burst = Array.from({ length: 5_000 }, (_, index) => work(`device ${index}`));
      for (const message of burst) {
        a.bus.send(b.replicaId, message);
        a.bus.send(b.replicaId, message);
      }
      await vi.waitFor(() => expect(b.heard).toHaveLength(burst.length), { timeout: 10_000 });
      expect(b.heard).toEqual(burst);
      await vi.waitFor(() => expect(payloads.join("")).toContain("device 4999"));
      expect(payloads.length).toBeLessThan(100);
      await stop();
    });

    test("a replica whose connection breaks connects again, looks again, and hears again", async () => {
      const proxy = await faulty();
      const [a, b] = [await join(), await join({ proxy })];
      expect(b.resyncs()).toBe(1);
      proxy.reset();
      await vi.waitFor(() => expect(b.resyncs()).toBe(2), { timeout: 15_000 });
      a.bus.send(b.replicaId, work("back"));
      await vi.waitFor(() => expect(b.heard).toContainEqual(work("back")));
    });

    test("a connection that went half open is noticed by its heartbeat and replaced", async () => {
      const proxy = await faulty();
      const [a, b] = [await join(), await join({ proxy })];
      proxy.set({ up: "blackhole", down: "blackhole" });
      const before = proxy.connected;
      await vi.waitFor(() => expect(proxy.connected).toBeGreaterThan(before), { timeout: 15_000 });
      proxy.heal();
      await vi.waitFor(() => expect(b.resyncs()).toBeGreaterThan(1), { timeout: 20_000 });
      a.bus.send(b.replicaId, work("through"));
      await vi.waitFor(() => expect(b.heard).toContainEqual(work("through")));
    });

    test("a replica that is refused for a while keeps trying until it is let in", async () => {
      const proxy = await faulty();
      const [a, b] = [await join(), await join({ proxy })];
      proxy.set({ onConnect: "reset" });
      proxy.reset();
      const before = proxy.connected;
      await vi.waitFor(() => expect(proxy.connected).toBeGreaterThanOrEqual(before + 3), { timeout: 15_000 });
      proxy.heal();
      await vi.waitFor(() => expect(b.resyncs()).toBe(2), { timeout: 15_000 });
      a.bus.send(b.replicaId, work("let in"));
      await vi.waitFor(() => expect(b.heard).toContainEqual(work("let in")));
    });

    test("what no replica would send is passed over, and so is a handler that throws", async () => {
      const b = await join({
        onMessage() {
          throw new Error("on purpose");
        },
      });
      for (const payload of [
        "",
        "null",
        "[]",
        "{}",
        '{"from":"x","messages":[null]}',
        "\u0000\ufffd{",
        "{".repeat(5_000),
      ]) {
        await rig.say(b.replicaId, payload.replaceAll("\u0000", " "));
      }
      await rig.say(b.replicaId, JSON.stringify({ from: "x", messages: [work("one")] }));
      await rig.say(b.replicaId, JSON.stringify({ from: "x", messages: [work("two")] }));
      await vi.waitFor(() => expect(b.heard).toEqual([work("one"), work("two")]));
    });

    test("sending to a bus that is gone costs no time, and its closing is bounded", async () => {
      const proxy = await faulty();
      const a = await join({ proxy });
      proxy.set({ onConnect: "hang", up: "blackhole", down: "blackhole" });
      const startedAt = performance.now();
      for (let index = 0; index < 100_000; index += 1) a.bus.broadcast(work(`device ${index}`));
      expect(performance.now() - startedAt).toBeLessThan(5_000);
      await Promise.race([
        a.bus.close(),
        delay(8_000, undefined, { ref: false }).then(() => expect.fail("still open")),
      ]);
    });
  });
}
