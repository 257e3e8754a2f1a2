/**
 * Two replicas and a bus that becomes unavailable: runs are late by at most the sweep, and no run
 * is lost. For both kinds of bus; bus-unreachable.slow.test.ts has one that is dead from the start.
 */
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { type BusRig, busKinds, missing, startBusRig } from "../../../support/bus.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { type FaultProxy, startFaultProxy } from "../../../support/fault-proxy.ts";
import { eventually } from "../../../support/processes.ts";
import { startTestReplica } from "../../../support/server.ts";
import { startWork, takeOn, untilStatus } from "../../../support/work.ts";

/** Longer than any test, so that every message arrives over the bus or from a resync. */
const noSweep = { PINION_SWEEP_INTERVAL_MS: "3600000" };
/** In addition to the sweep: the time of the pass and the claim on a busy machine. */
const busyMs = 4_000;

for (const kind of busKinds) {
  describe.skipIf(missing(kind))(`two replicas over ${kind}`, () => {
    const database = useDatabase();
    let rig: BusRig;
    let proxy: FaultProxy;
    beforeEach(async () => {
      rig = await startBusRig(kind, database);
      proxy = await startFaultProxy({ port: rig.port });
    });
    afterEach(async () => {
      await proxy.close();
      await rig.close();
    });

    /**
     * One replica receives the calls, the other serves the device and has its bus behind the proxy.
     */
    async function startPair(env: Record<string, string>) {
      const called = await startTestReplica(database.url, { ...rig.env(), ...env });
      const holder = await startTestReplica(database.url, { ...rig.env(proxy.port), ...env });
      const device = await enrolDevice(called.clients);
      const stream = await connect(holder.url, device, { maxConcurrency: 50 });
      return { called, holder, device, stream };
    }

    test("a run that one replica triggers is pushed by the other within a moment", async () => {
      const { called, device, stream } = await startPair(noSweep);
      const latenciesMs: number[] = [];
      for (let index = 0; index < 20; index += 1) {
        const startedAt = performance.now();
        const { id } = await startWork(called.clients, device);
        const assignment = await stream.next("assignment");
        latenciesMs.push(performance.now() - startedAt);
        expect(assignment.workId).toBe(id);
        stream.accept(assignment);
        await stream.complete(assignment);
      }
      latenciesMs.sort((a, b) => a - b);
      // Includes two rpcs. There is no sweep, so without the bus no run would be pushed at all.
      expect(latenciesMs[10]).toBeLessThan(10_000);
    });

    test("with the bus dead, runs are late by at most the sweep, and none is lost", async () => {
      const sweepMs = 400;
      const { called, device, stream } = await startPair({ PINION_SWEEP_INTERVAL_MS: String(sweepMs) });
      proxy.set({ onConnect: "reset" });
      proxy.reset();
      await eventually(() => proxy.open === 0 || undefined, "the end of the bus's connections");
      const pushedLateMs: number[] = [];
      for (let index = 0; index < 10; index += 1) {
        const { id } = await startWork(called.clients, device);
        const startedAt = performance.now();
        const assignment = await takeOn(stream);
        pushedLateMs.push(performance.now() - startedAt);
        expect(assignment.workId).toBe(id);
        await stream.complete(assignment);
        await untilStatus(called.clients, { workId: id }, RunStatus.COMPLETED);
      }
      expect(Math.max(...pushedLateMs)).toBeLessThan(sweepMs + busyMs);
    });

    test("what was announced into a gap is found as soon as the gap is over", async () => {
      const { called, holder, device, stream } = await startPair(noSweep);
      const { id: cancelled } = await startWork(called.clients, device);
      await takeOn(stream);
      const sent: string[] = [];
      const stop = await rig.overhear(holder.replicaId, (payload) => sent.push(payload));
      onTestFinished(stop);
      proxy.set({ onConnect: "reset" });
      proxy.reset();
      await eventually(() => proxy.open === 0 || undefined, "the end of the bus's connections");
      const { id: started } = await startWork(called.clients, device);
      await called.clients.runs.cancelRun({ runId: cancelled });
      await eventually(
        () => sent.some((payload) => payload.includes(cancelled)) || undefined,
        "the announcement",
      );
      // The run may be found within the gap, by a claim that is under way; the cancel is not.
      expect(stream.waiting("cancel")).toEqual([]);
      proxy.heal();
      expect((await stream.next("cancel")).workId).toBe(cancelled);
      expect((await stream.next("assignment")).workId).toBe(started);
    });
  });
}
