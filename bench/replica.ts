/** A replica in its own process: `pinion serve` without the command around the replica. */

import { replicaConfig } from "../src/config.ts";
import { createLogger } from "../src/log.ts";
import { boundHeapGrowth } from "../src/replica/heap-growth.ts";
import { startReplica } from "../src/replica/replica.ts";
import { answerQuestions } from "./lib/children.ts";

const replica = await startReplica(
  replicaConfig({ PINION_PORT: "0", PINION_HOST: "127.0.0.1", ...process.env }),
  {
    log: createLogger({ name: "bench", level: process.env.PINION_LOG_LEVEL ?? "warn" }),
    ...boundHeapGrowth(),
  },
);

answerQuestions(async (question: { kind: "url" | "stop" | "gc" }) => {
  if (question.kind === "stop") await replica.stop();
  if (question.kind === "gc") global.gc?.();
  return replica.url;
});
