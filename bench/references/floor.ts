/**
 * The floor: the rows of as many runs, written by the same statements from one process in batches,
 * without streams and without waiting.
 */

import { storeCurrent } from "../../src/scheduler/endings/run-endings.ts";
import { materializeOnce } from "../../src/scheduler/slots/materializer.ts";
import { openDatabase, transaction } from "../../src/store/pg/database.ts";
import * as attempts from "../../src/store/work/attempts/attempts.ts";
import * as runClaims from "../../src/store/work/runs/run-claims.ts";
import * as presence from "../../src/store/work/service/presence.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { answerQuestions } from "../lib/children.ts";
import { query } from "../lib/cluster.ts";

type Question = { url: string };

const slotsPerDevice = 64;
const policy = { retryBackoffMs: 10_000, backoffAfter: 3, pauseAfter: 10, watcherBackoffMs: 900_000 };
const doorbell = {
  recorded() {},
  settled() {},
  kept() {},
  cancelling() {},
  turnStarted() {},
  turnsEnded() {},
  repliesKept() {},
  turnsWithdrawn() {},
};

answerQuestions(async ({ url }: Question) => {
  const { rows: devices } = await query(url, 'select org_id as "orgId", id as "deviceId" from device');
  const { db, close } = openDatabase({ url, poolMax: 2 });
  const sessions: presence.SessionName[] = [];
  for (const device of devices) {
    const { epoch, sessionId } = await transaction(db, (tx) =>
      presence.open(tx, { ...device, replicaId: "floor" }),
    );
    sessions.push({ ...device, epoch, sessionId });
  }
  const log = createLogger({ name: "floor", level: "warn" });
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  while ((await materializeOnce(db, { doorbell, log })) > 0);
  let runs = 0;
  for (;;) {
    const claimed = await runClaims.claim(
      db,
      sessions.map((session) => ({ ...session, slots: slotsPerDevice, kinds: null })),
    );
    if (claimed.length === 0) break;
    for (let at = 0; at < claimed.length; at += 500) {
      const batch = claimed.slice(at, at + 500);
      await transaction(db, (tx) =>
        attempts.accept(
          tx,
          batch.map((run) => ({ ...run, workId: run.runId, pushedAgoMs: 1, acceptedAgoMs: 0 })),
        ),
      );
      await transaction(db, (tx) =>
        storeCurrent(
          tx,
          batch.map(({ orgId, deviceId, runId, attemptToken }) => ({
            ...{ orgId, deviceId, workId: runId, attemptToken },
            ...{ status: "completed", output: "done", isOutputTruncated: false, exitCode: 0 },
            ...{ signal: "", reason: "", durationMs: 1 },
          })),
          policy,
        ),
      );
    }
    runs += claimed.length;
  }
  const seconds = (performance.now() - startedAt) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  await close();
  return { runs, seconds, cpuSeconds: (user + system) / 1e6 };
});
