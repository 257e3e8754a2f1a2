/** A replica in its own process: `pinion serve` without the command around the replica. */

import { writeFile } from "node:fs/promises";
import { Session } from "node:inspector/promises";
import { writeHeapSnapshot } from "node:v8";
import { replicaConfig } from "../src/config.ts";
import { boundHeapGrowth } from "../src/replica/heap-growth.ts";
import { startReplica } from "../src/replica/replica.ts";
import { createLogger } from "../src/telemetry/log.ts";
import { answerQuestions } from "./lib/children.ts";

const replica = await startReplica(
  replicaConfig({ PINION_PORT: "0", PINION_HOST: "127.0.0.1", ...process.env }),
  {
    log: createLogger({ name: "bench", level: process.env.PINION_LOG_LEVEL ?? "warn" }),
    ...boundHeapGrowth(),
  },
);

const inspector = new Session();

/** How long the turns of the event loop take, by a timer of a millisecond; the longest first. */
const turns = { timer: undefined as NodeJS.Timeout | undefined, longest: [] as { at: number; ms: number }[] };

function measureTurns(): void {
  let lastAt = performance.now();
  turns.longest = [];
  turns.timer = setInterval(() => {
    const at = performance.now();
    if (at - lastAt > turnMsMin) {
      turns.longest.push({ at: performance.timeOrigin + lastAt, ms: at - lastAt });
    }
    lastAt = at;
  }, 1);
}

/** The turns that are told. */
const turnMsMin = 5;

/**
 * "turns" begins to measure the turns of the event loop, and "turned" answers with those above 5
 * ms. "profile" begins a profile of the CPU, and "profiled" writes it to `path`; "snapshot" writes
 * the heap; "heap" answers with the bytes of the objects that are alive.
 */
type Question =
  | { kind: "url" | "stop" | "gc" | "heap" | "profile" | "turns" | "turned" }
  | { kind: "profiled" | "snapshot"; path: string };

answerQuestions(async (question: Question) => {
  if (question.kind === "stop") await replica.stop();
  if (question.kind === "gc" || question.kind === "heap") global.gc?.();
  if (question.kind === "heap") return process.memoryUsage().heapUsed;
  if (question.kind === "turns") measureTurns();
  if (question.kind === "turned") {
    clearInterval(turns.timer);
    return turns.longest.sort((a, b) => b.ms - a.ms);
  }
  if (question.kind === "snapshot") writeHeapSnapshot(question.path);
  if (question.kind === "profile") {
    inspector.connect();
    await inspector.post("Profiler.enable");
    await inspector.post("Profiler.start");
  }
  if (question.kind === "profiled") {
    const { profile } = await inspector.post("Profiler.stop");
    await writeFile(question.path, JSON.stringify(profile));
    inspector.disconnect();
  }
  return replica.url;
});
