/**
 * The cost of metrics: recording a push, an acknowledgement and a batch, and a scrape, each as a
 * share of one message's round trip through the protobuf library, measured in the same run. `npx
 * node bench/metrics.ts`
 */
import { randomUUID } from "node:crypto";
import { cpus } from "node:os";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ConnectRequestSchema } from "#gen/pinion/v1/device_pb.js";
import { createTelemetry } from "../src/server/telemetry.ts";
import type { ClaimedRun } from "../src/store/work/runs/run-claims.ts";
import { createMetrics } from "../src/telemetry/metrics.ts";

const rounds = 15;
const callsPerRound = 100_000;

const metrics = createMetrics({ version: "bench" });
metrics.observe({
  isServing: () => true,
  isBusUp: () => true,
  clockDoubtMs: () => 0,
  hub: () => ({ sessions: 10_000, attempts: 5_000 }),
  crowd: () => ({ connections: { known: 10_000, stranger: 100 }, bytes: { known: 0, stranger: 0 } }),
  pools: {
    work: () => ({ open: 8, idle: 4, waiting: 0 }),
    requests: () => ({ open: 10, idle: 5, waiting: 0 }),
  },
  database: async () => undefined,
});
const telemetry = createTelemetry({ metrics, tracer: undefined });
const onBatch = telemetry.batch("claims");
const attempt = { orgId: "local", deviceId: randomUUID(), workId: randomUUID() };
const run = { ...attempt, runId: attempt.workId, attempt: 1 } as unknown as ClaimedRun;
const heartbeat = create(ConnectRequestSchema, {
  message: {
    case: "heartbeat",
    value: { sequence: 7n, attempts: [{ workId: attempt.workId, attemptToken: randomUUID() }] },
  },
});

const measured: Record<string, () => void> = {
  "a heartbeat, encoded and decoded": () => {
    fromBinary(ConnectRequestSchema, toBinary(ConnectRequestSchema, heartbeat));
  },
  "a push, counted": () => telemetry.pushed(run, { claimMs: 1, waitedMs: 3 }),
  "an acknowledgement, counted": () => telemetry.acknowledged(attempt, "stored", 2),
  "a batch, counted": () => onBatch(12, 2),
  "the end of a stream, counted": () => telemetry.streamEnded("stream_broken"),
};

/**
 * Medians over alternating rounds, so that other load of the machine affects all measurements
 * alike.
 */
const nanoseconds = new Map(Object.keys(measured).map((name) => [name, [] as number[]]));
for (let round = 0; round < rounds; round++) {
  for (const [name, call] of Object.entries(measured)) {
    const startedAt = performance.now();
    for (let i = 0; i < callsPerRound; i++) call();
    nanoseconds.get(name)!.push(((performance.now() - startedAt) * 1e6) / callsPerRound);
  }
}
const scrapes: number[] = [];
for (let round = 0; round < rounds * 10; round++) {
  const startedAt = performance.now();
  await metrics.text();
  scrapes.push((performance.now() - startedAt) * 1e6);
}
nanoseconds.set("a scrape", scrapes);

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!;
const reference = median(nanoseconds.get("a heartbeat, encoded and decoded")!);
console.log(`${new Date().toISOString().slice(0, 10)}, ${cpus()[0]?.model}, Node ${process.version}`);
for (const [name, values] of nanoseconds) {
  const ns = median(values);
  console.log(
    `${name.padEnd(34)} ${ns.toFixed(0).padStart(8)} ns  ${(ns / reference).toFixed(2).padStart(7)} ×`,
  );
}
metrics.close();
