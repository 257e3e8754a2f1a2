/**
 * Triggers by a device itself: only its own watchers, never a second run, and no schedule moves.
 */

import { Code } from "@connectrpc/connect";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { inNewOrg, inOneNewOrg } from "../../../support/server.ts";
import { untilStatus, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one", "two");

test("a device's trigger of a watcher whose run is pending, claimed or running answers already_queued, with that run", async () => {
  const { one, two } = await inOneNewOrg(replicas);
  const laptop = await enrolDevice(one.clients);
  const { watcher } = await one.clients.watchers.createWatcher({
    spec: { name: "W", prompt: "p", deviceId: laptop.deviceId, schedule: "0 9 * * *" },
  });
  const watcherId = watcher!.id;
  const [here, there] = [one, two].map((replica) => {
    const clients = createClients({ url: replica.url, token: laptop.token });
    onTestFinished(() => clients.close());
    return clients.device;
  });
  const mine = async () =>
    (await there!.listMyWatchers({})).watchers.find((candidate) => candidate.id === watcherId)!;
  const before = await mine();
  expect(before.lastFiredAt).toBeUndefined();

  // Two replicas, the same moment: one run.
  const answers = await Promise.all(
    [here, there, here, there].map((device) => device!.triggerWatcher({ watcherId })),
  );
  expect(answers.filter((answer) => !answer.alreadyQueued)).toHaveLength(1);
  const runId = answers[0]!.run!.id;
  expect(new Set(answers.map((answer) => answer.run!.id))).toEqual(new Set([runId]));

  const again = async (status: RunStatus) => {
    for (const device of [here, there]) {
      expect(await device!.triggerWatcher({ watcherId })).toMatchObject({
        alreadyQueued: true,
        run: { id: runId, status },
      });
    }
  };
  await again(RunStatus.PENDING);
  const stream = await connect(one.url, laptop);
  const assignment = await stream.next("assignment");
  await untilStatus(one.clients, { workId: runId }, RunStatus.CLAIMED);
  await again(RunStatus.CLAIMED);
  stream.accept(assignment);
  await stream.beat([assignment]);
  await untilStatus(one.clients, { workId: runId }, RunStatus.RUNNING);
  await again(RunStatus.RUNNING);

  await here!.completeRun({
    completion: { workId: runId, attemptToken: assignment.attemptToken, outcome: 1 },
  });
  const after = await mine();
  expect(after.lastFiredAt).toBeDefined();
  // A manual run moves no schedule.
  expect(after.nextSlotAt).toEqual(before.nextSlotAt);
  const next = await here!.triggerWatcher({ watcherId });
  expect(next.alreadyQueued).toBe(false);
  expect(next.run!.id).not.toBe(runId);
});

test("the run of a trigger is claimed as it is recorded, if its device is connected to the replica", async () => {
  const replica = await inNewOrg(replicas.one);
  const laptop = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, laptop);
  const { watchers } = replica.clients;
  const { watcher } = await watchers.createWatcher({
    spec: { name: "W", prompt: "p", deviceId: laptop.deviceId },
  });
  const trigger = async () => {
    await watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await stream.next("assignment");
    const { rows } = await sql<{ isOneWrite: boolean }>`
      select claimed_at = created_at as "isOneWrite" from run where id = ${assignment.workId}`.execute(
      database.db,
    );
    await stream.complete(assignment);
    return rows[0]?.isOneWrite;
  };
  // The session has looked for earlier work once, and knows from then on that none waits.
  await vi.waitFor(async () => expect(await trigger()).toBe(true));
  expect(await trigger()).toBe(true);
});

test("a trigger that is repeated under its request id answers with its run: at once, later, and when the watcher is gone", async () => {
  const { one, two } = await inOneNewOrg(replicas);
  const laptop = await enrolDevice(one.clients);
  const { watcher } = await one.clients.watchers.createWatcher({
    spec: { name: "W", prompt: "p", deviceId: laptop.deviceId },
  });
  const trigger = (requestId: string, replica = one) =>
    replica.clients.watchers.triggerWatcher({ watcherId: watcher!.id, requestId });
  // The repeats wait for the first, on both replicas.
  const answers = await Promise.all([one, two, one, two].map((replica) => trigger("once", replica)));
  const runId = answers[0]!.run!.id;
  expect(answers).toMatchObject(answers.map(() => ({ alreadyQueued: false, run: { id: runId } })));
  expect((await trigger("another")).alreadyQueued).toBe(true);

  const stream = await connect(one.url, laptop);
  await stream.complete(await stream.next("assignment"));
  expect((await trigger("once", two)).run).toMatchObject({ id: runId, status: RunStatus.COMPLETED });
  expect((await trigger("another")).run!.id).toBe(runId);
  await one.clients.watchers.deleteWatcher({ watcherId: watcher!.id });
  expect((await trigger("once")).run!.id).toBe(runId);
  await expect(trigger("a new one")).rejects.toMatchObject({ code: Code.NotFound });
  const { runs } = await one.clients.runs.listRuns({ deviceId: laptop.deviceId });
  expect(runs.map(({ id }) => id)).toEqual([runId]);
});
