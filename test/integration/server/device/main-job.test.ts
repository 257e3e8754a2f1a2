import { expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { inNewOrg, inOneNewOrg } from "../../../support/server.ts";
import { useReplicas } from "../../../support/work.ts";

const replicas = useReplicas(useDatabase({ per: "file" }), "first", "second");
/** One of them is pushed in time, on a busy machine too. */
const slotsMax = 30;

test("a watcher that falls due is pushed within 50 ms, and its result is stored once", async () => {
  const { clients, url } = await inNewOrg(replicas.first);
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Every second", prompt: "say it", schedule: "* * * * * *", deviceId: device.deviceId },
  });
  // On a busy machine single pushes are late; a push that waits for a tick is always late.
  let pushMs = Number.POSITIVE_INFINITY;
  for (let slot = 0; slot < slotsMax && pushMs >= 50; slot++) {
    const early = await stream.next("assignment");
    pushMs = Date.now() - Number(early.event!.firedAt!.seconds) * 1000;
    stream.accept(early);
    await stream.complete(early, "earlier");
  }
  expect(pushMs).toBeLessThan(50);
  const assignment = await stream.next("assignment");
  expect(assignment.watcher).toMatchObject({ id: watcher!.id, prompt: "say it" });
  stream.accept(assignment);
  await stream.beat([assignment]);
  const ack = await stream.complete(assignment, "it");
  const { run } = await clients.runs.getRun({ runId: assignment.workId });
  expect(run).toMatchObject({ status: RunStatus.COMPLETED, windowId: ack.windowId });
  const { windows } = await clients.runs.listWindows({ watcherId: watcher!.id });
  expect(windows[0]!.extractedData).toEqual({
    kind: "device_cli_output",
    agent_kind: "",
    output: "it",
    exit_code: null,
    is_truncated: false,
  });
  expect(windows.map((window) => window.runId)).toEqual([...new Set(windows.map((window) => window.runId))]);
});

test("a run that is triggered on one replica is pushed at once through the other one", async () => {
  const { first, second } = await inOneNewOrg(replicas);
  const device = await enrolDevice(first.clients);
  const stream = await connect(first.url, device);
  const startedAt = performance.now();
  const { run } = await second.clients.watchers.triggerWatcher({ watcherId: "daily-checkin" });
  const assignment = await stream.next("assignment");
  expect(assignment.workId).toBe(run!.id);
  // The sweep would take up to 15 s.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});
