/** Selectors together with what goes on over several runs: backfills, and sessions of agents. */
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { beforeAll, expect, test, vi } from "vitest";
import { ContinueMode } from "#gen/pinion/v1/activity_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { SpreadMode } from "#gen/pinion/v1/watcher_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { takeOn, usePatientReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = usePatientReplicas(database, "one");
let clients: (typeof replicas.one)["clients"];

beforeAll(() => {
  clients = replicas.one.clients;
});

async function labelled(label: string) {
  const device = await enrolDevice(clients);
  await clients.fleet.labelDevice({ deviceId: device.deviceId, add: [label] });
  return { ...device, stream: await connect(replicas.one.url, device, { maxConcurrency: 2 }) };
}

async function end(stream: DeviceStream, sessionId = "") {
  const { workId, attemptToken, session, context } = await takeOn(stream);
  stream.send({
    case: "complete",
    value: {
      workId,
      attemptToken,
      outcome: Outcome.COMPLETED,
      output: "done",
      resultText: "done",
      sessionId,
    },
  });
  await stream.next("completionAck");
  return { workId, session: session?.sessionId ?? "", deviceId: context?.deviceId };
}

test("a backfill of a watcher that is spread runs each slot once on each device", async () => {
  const devices = [await labelled("spread-1"), await labelled("spread-1")];
  const hourMs = 3_600_000;
  // No slot of its own falls due meanwhile: the next one is half an hour away.
  const halfPast = Math.floor(Date.now() / 60_000) * 60_000 - hourMs / 2;
  const minute = new Date(halfPast).getUTCMinutes();
  const until = halfPast - 2 * hourMs;
  const { watcher } = await clients.watchers.createWatcher({
    spec: {
      ...{ name: "Spread", prompt: "look", schedule: `${minute} * * * *`, timeZone: "UTC" },
      ...{ selector: '"spread-1" in labels', spread: SpreadMode.ALL },
    },
  });
  const { slotsAccepted } = await clients.watchers.backfillWatcher({
    ...{ watcherId: watcher!.id, start: timestampFromMs(until - 2 * hourMs), end: timestampFromMs(until) },
  });
  expect(slotsAccepted).toBe(2);
  for (let slot = 0; slot < 2; slot++) await Promise.all(devices.map(({ stream }) => end(stream)));
  await vi.waitFor(
    async () => {
      const { runs } = await clients.runs.listRuns({ watcherId: watcher!.id });
      expect(runs.map(({ status }) => status)).toEqual(Array(4).fill(RunStatus.COMPLETED));
      for (const { deviceId } of devices) {
        const windows = runs
          .filter((run) => run.deviceId === deviceId)
          .map((run) => timestampMs(run.windowEnd!));
        expect(windows.sort()).toEqual([until - 2 * hourMs, until - hourMs]);
      }
    },
    { timeout: 10_000, interval: 50 },
  );
});

test("a watcher that selects and goes on in its session goes to the session's device while that matches, and begins anew elsewhere", async () => {
  const [first, second] = [await labelled("session-1"), await labelled("session-1")];
  const { watcher } = await clients.watchers.createWatcher({
    spec: {
      ...{ name: "Goes on", prompt: "look", continueMode: ContinueMode.SESSION },
      selector: '"session-1" in labels',
    },
  });
  const trigger = () => clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await trigger();
  const home = await vi.waitFor(
    () => {
      const found = [first, second].find(({ stream }) => stream.waiting("assignment").length > 0);
      if (!found) throw new Error("no device has the run yet");
      return found;
    },
    { timeout: 10_000, interval: 10 },
  );
  const other = home === first ? second : first;
  expect((await end(home.stream, "session-7")).session).toBe("");
  // Busier than the other device, and still the device of the session.
  const busy = await clients.watchers.createWatcher({
    spec: { name: "Busy", prompt: "x", deviceId: home.deviceId },
  });
  await clients.watchers.triggerWatcher({ watcherId: busy.watcher!.id });
  await takeOn(home.stream);
  await trigger();
  expect((await end(home.stream, "session-7")).session).toBe("session-7");
  await clients.fleet.labelDevice({ deviceId: home.deviceId, remove: ["session-1"] });
  await trigger();
  expect((await end(other.stream, "session-8")).session).toBe("");
});
