/** R6: identity comes from the token; a device only reaches work pinned to itself. */
import { createClients } from "@pinion/client";
import { expect, test } from "vitest";
import { CompletionVerdict, HeldAttemptState, HeldVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../support/database.ts";
import { connect, dial, enrolDevice } from "../../support/device.ts";
import { inNewOrg, useReplica } from "../../support/server.ts";
import { untilStatus } from "../../support/work.ts";

const replicaOfFile = useReplica(useDatabase({ per: "file" }));

/** A run that its device works on, and another device of the same org with its own stream. */
async function meet() {
  const { clients, url } = await inNewOrg(replicaOfFile());
  const mine = await enrolDevice(clients);
  const stranger = await enrolDevice(clients);
  const stream = await connect(url, mine);
  const strangers = await connect(url, stranger);
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Mine", prompt: "say it", deviceId: mine.deviceId },
  });
  await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  const assignment = await stream.next("assignment");
  stream.accept(assignment);
  await stream.beat([assignment]);
  // The session answers a heartbeat before the accept is stored.
  await untilStatus(clients, assignment, RunStatus.RUNNING);
  const statusOf = async () => (await clients.runs.getRun({ runId: assignment.workId })).run!.status;
  return { clients, url, mine, stranger, stream, strangers, watcher: watcher!, assignment, statusOf };
}

test("R6: a device cannot complete, cancel, beat for or reject another device's run over its stream", async () => {
  const { strangers, stream, assignment, statusOf } = await meet();
  const name = { workId: assignment.workId, attemptToken: assignment.attemptToken };
  const ack = await strangers.complete(assignment, "stolen");
  expect(ack.verdict).toBe(CompletionVerdict.UNKNOWN);
  strangers.send({ case: "cancelled", value: name });
  strangers.send({ case: "reject", value: { ...name, reason: 1, message: "no" } });
  strangers.accept(assignment);
  await strangers.beat([assignment]);
  // The other device is told to end the attempt.
  expect(await strangers.next("cancel")).toMatchObject(name);
  expect(await statusOf()).toBe(RunStatus.RUNNING);
  expect((await stream.complete(assignment, "mine")).verdict).toBe(CompletionVerdict.STORED);
});

test("R6: a device cannot complete another device's run by the unary call, with the right token of the attempt", async () => {
  const { url, stranger, mine, assignment, statusOf } = await meet();
  const completion = {
    workId: assignment.workId,
    attemptToken: assignment.attemptToken,
    outcome: Outcome.COMPLETED,
    output: "stolen",
  };
  const theirs = createClients({ url, token: stranger.token });
  await expect(theirs.device.completeRun({ completion })).rejects.toThrow(/no such attempt/);
  expect(await statusOf()).toBe(RunStatus.RUNNING);
  const ours = createClients({ url, token: mine.token });
  expect((await ours.device.completeRun({ completion })).verdict).toBe(CompletionVerdict.STORED);
});

test("R6: a device that claims in its hello to hold another's run is told to abort it", async () => {
  const { url, stranger, assignment, statusOf } = await meet();
  const { welcome } = await connect(url, stranger, {
    held: [{ ...assignment, $typeName: undefined, state: HeldAttemptState.RUNNING } as never],
  });
  expect(welcome.verdicts).toMatchObject([{ verdict: HeldVerdict.ABORT }]);
  expect(await statusOf()).toBe(RunStatus.RUNNING);
});

test("R6: a device sees and triggers its own watchers only", async () => {
  const { url, stranger, mine, watcher } = await meet();
  const theirs = createClients({ url, token: stranger.token });
  const ours = createClients({ url, token: mine.token });
  expect((await theirs.device.listMyWatchers({})).watchers.map(({ id }) => id)).not.toContain(watcher.id);
  expect((await ours.device.listMyWatchers({})).watchers.map(({ id }) => id)).toContain(watcher.id);
  await expect(theirs.device.triggerWatcher({ watcherId: watcher.id })).rejects.toThrow(/not_found/);
  expect((await ours.device.triggerWatcher({ watcherId: watcher.id })).alreadyQueued).toBe(true);
});

test("R6: a token does not open a stream in the name of another installation", async () => {
  const { url, mine, stranger } = await meet();
  const stream = dial(url, stranger.token);
  stream.hello({ ...stranger, installId: mine.installId });
  expect(await stream.ended).toMatchObject({ details: expect.stringContaining("another installation") });
});
