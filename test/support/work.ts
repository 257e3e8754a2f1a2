/** Work for a device, and a watcher of the work. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Clients } from "@pinion/client";
import { afterAll, beforeAll, expect, onTestFinished, vi } from "vitest";
import { type Assignment, HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import type { Run, RunActivity, RunOutput, RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import type { DeviceStream, Identity } from "./device.ts";
import { openTestReplica, type TestReplica } from "./server.ts";

/** Replicas shared by all tests of a file, on a shared database. Register after the database. */
export function useReplicas<Name extends string>(
  database: { readonly url: string },
  ...names: Name[]
): Readonly<Record<Name, TestReplica>> {
  return useReplicasWith({}, database, ...names);
}

/**
 * Like {@link useReplicas}, for tests in which no silence ends anything: a device driven by hand
 * does not beat while its test is busy with another, which takes seconds on a busy machine.
 */
export function usePatientReplicas<Name extends string>(
  database: { readonly url: string },
  ...names: Name[]
): Readonly<Record<Name, TestReplica>> {
  return useReplicasWith({ PINION_HEARTBEAT_TTL_MS: "60000" }, database, ...names);
}

/** Like {@link useReplicas}, with settings. */
export function useReplicasWith<Name extends string>(
  env: Record<string, string>,
  database: { readonly url: string },
  ...names: Name[]
): Readonly<Record<Name, TestReplica>> {
  const replicas = {} as Record<Name, TestReplica>;
  beforeAll(async () => {
    for (const name of names) replicas[name] = await openTestReplica(database.url, env);
  });
  afterAll(async () => {
    await Promise.all(Object.values<TestReplica>(replicas).map((replica) => replica.stop()));
  });
  return replicas;
}

let count = 0;

/** A new manual watcher pinned to the device, and a run of the watcher. */
export async function startWork(
  clients: Clients,
  device: Identity,
  spec: MessageInitShape<typeof WatcherSpecSchema> = {},
): Promise<Run> {
  count += 1;
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: `Work ${count}`, prompt: "do it", deviceId: device.deviceId, ...spec },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  return run!;
}

export async function getRun(clients: Clients, { workId }: { workId: string }): Promise<Run> {
  const { run } = await clients.runs.getRun({ runId: workId });
  return run!;
}

/** Waits until a run has a status, looking often. */
export async function untilStatus(
  clients: Clients,
  run: { workId: string },
  status: RunStatus,
  timeout = 10_000,
): Promise<Run> {
  return vi.waitFor(
    async () => {
      const now = await getRun(clients, run);
      expect(now.status).toBe(status);
      return now;
    },
    { timeout, interval: 20 },
  );
}

/**
 * Accepts the next assignment, and beats for it and the others, so that the server has read the
 * accept.
 */
export async function takeOn(
  stream: DeviceStream,
  ...others: { workId: string; attemptToken: string }[]
): Promise<Assignment> {
  const assignment = await stream.next("assignment");
  stream.accept(assignment);
  await stream.beat([assignment, ...others]);
  return assignment;
}

/** The entry of a hello for an attempt held by the device. */
export function heldOf(
  attempt: { workId: string; attemptToken: string },
  state = HeldAttemptState.RUNNING,
): { workId: string; attemptToken: string; state: HeldAttemptState } {
  return { workId: attempt.workId, attemptToken: attempt.attemptToken, state };
}

/**
 * Watches a run from now on; messages so far are in `runs` and `outputs`, and `ended` resolves with
 * the stream.
 */
export function watchRun(clients: Clients, { workId }: { workId: string }) {
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const runs: Run[] = [];
  const outputs: RunOutput[] = [];
  const activities: RunActivity[] = [];
  const ended = (async () => {
    for await (const { update } of clients.runs.watchRun({ runId: workId }, { signal: stop.signal })) {
      if (update.case === "run") runs.push(update.value);
      if (update.case === "output") outputs.push(update.value);
      if (update.case === "activity") activities.push(update.value);
    }
  })();
  ended.catch(() => {});
  const text = () => Buffer.concat(outputs.map((output) => output.data)).toString();
  return {
    runs,
    outputs,
    activities,
    ended,
    text,
    begun: () => vi.waitFor(() => expect(runs.length).toBeGreaterThan(0)),
  };
}
