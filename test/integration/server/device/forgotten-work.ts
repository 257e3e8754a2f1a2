/** Work that the database forgot in a failover, while its devices have the results. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { sql } from "kysely";
import { type Assignment, type CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import type { WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import type { Db } from "../../../../src/store/pg/database.ts";
import type { DeviceStream } from "../../../support/device.ts";
import type { TestReplica } from "../../../support/server.ts";

/** The state of a standby that was promoted before any row of the runs was replicated. */
export async function forget(db: Db, ...runIds: string[]): Promise<void> {
  for (const runId of runIds) {
    for (const table of ["run", "run_finished"])
      await sql`delete from ${sql.table(table)} where id = ${runId}`.execute(db);
    await sql`delete from run_start where run_id = ${runId}`.execute(db);
    await sql`delete from hook_delivery where run_id = ${runId}`.execute(db);
  }
}

/** Offers the result of a run again, with the run. */
export async function offer(stream: DeviceStream, assignment: Assignment): Promise<CompletionVerdict> {
  const { workId, attemptToken, attempt, watcher, event } = assignment;
  const { source, scheduledFor, windowStart, windowEnd } = event!;
  const reoffer = {
    ...{ watcherId: watcher!.id, attempt, source, windowStart: windowStart!, windowEnd: windowEnd! },
    ...(scheduledFor ? { scheduledFor } : {}),
  };
  const value = { workId, attemptToken, outcome: Outcome.COMPLETED, output: "the answer", reoffer };
  stream.send({ case: "complete", value });
  return (await stream.next("completionAck")).verdict;
}

let hooks = 0;

/** A watcher with a hook, and deliveries to the hook. */
export async function hooked(
  { clients, url }: TestReplica,
  spec: MessageInitShape<typeof WatcherSpecSchema>,
) {
  hooks += 1;
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: `Hooked ${hooks}`, prompt: "look", ...spec },
  });
  const { hook, secret, ...made } = await clients.hooks.createHook({
    spec: { watcherId: watcher!.slug, kind: HookKind.BEARER },
  });
  const post = async (key: string) => {
    const headers = { authorization: `Bearer ${secret}`, "idempotency-key": key };
    const response = await fetch(`${url}${made.url}`, { method: "POST", body: "{}", headers });
    return (await response.json()) as { outcome: string; run_id: string };
  };
  return { watcher: watcher!, hook, post };
}
