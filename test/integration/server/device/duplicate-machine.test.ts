/**
 * A copy of a device's state on another machine takes neither the device's session nor its runs.
 */
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { findIdentity } from "@pinion/client";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import {
  isOtherMachine,
  type LastSession,
  type Newcomer,
  rivalOf,
} from "../../../../src/store/people/devices/machines.ts";
import { runCommand } from "../../../support/command.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, dial, enrolDevice } from "../../../support/device.ts";
import { temporaryDirectory } from "../../../support/processes.ts";
import { getRun, heldOf, startWork, takeOn, untilStatus, useReplicas } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

type Named = { deviceId: string };

const untilDisconnected = (clients: (typeof replicas)["here"]["clients"], { deviceId }: Named) =>
  expect.poll(async () => (await clients.fleet.getDevice({ deviceId })).device?.disconnectedAt).toBeTruthy();

/** A heartbeat of the device's open session is written. */
async function untilBeaten({ deviceId }: Named): Promise<void> {
  await expect
    .poll(async () => {
      const { rows } = await sql<{ isBeaten: boolean }>`
        select last_beat_at > connected_at as "isBeaten" from presence where device_id = ${deviceId}`.execute(
        database.db,
      );
      return rows[0]?.isBeaten;
    })
    .toBe(true);
}

const laptop = { machineHash: "m1", bootHash: "b1", hostName: "laptop" };
const copy = { machineHash: "m2", bootHash: "b2", hostName: "build-7" };

test("the second machine is turned down with words, the attempt that runs survives, and people see the duplicate", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const first = await connect(url, device, { machine: laptop });
  const run = await startWork(clients, device);
  const assignment = await takeOn(first);
  await untilStatus(clients, { workId: run.id }, RunStatus.RUNNING);

  for (let tries = 0; tries < 3; tries++) {
    const second = dial(url, device.token);
    second.hello(device, { machine: copy });
    const { code, details } = await second.ended;
    expect(code).toBe(status.FAILED_PRECONDITION);
    expect(details).toMatch(
      /connected from another machine \(laptop\), and build-7 has a copy of its identity; `pinion device enroll --anew/,
    );
  }
  await first.beat([assignment]);
  expect(await getRun(clients, { workId: run.id })).toMatchObject({ status: RunStatus.RUNNING, attempt: 1 });
  await first.complete(assignment);
  await untilStatus(clients, { workId: run.id }, RunStatus.COMPLETED);

  const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(seen).toMatchObject({ hostName: "laptop", duplicate: { hostName: "build-7" } });
  const { events } = await clients.events.listEvents({ kinds: ["device.duplicate_refused"] });
  expect(events.filter(({ deviceId }) => deviceId === device.deviceId)).toHaveLength(1);
  const env = { HOME: "/nonexistent", PINION_URL: url, PINION_TOKEN: replicas.here.token };
  expect((await runCommand(env, "devices", "get", device.deviceId)).out).toMatch(/build-7 has a copy/);
  expect((await runCommand(env, "doctor")).out).toMatch(/build-7 has a copy of its identity/);
});

test("a reboot, or a machine id that was made anew, is the same machine; so is one that says nothing", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const first = await connect(url, device, { machine: laptop });
  const rebooted = await connect(url, device, { machine: { ...laptop, bootHash: "b9" } });
  await first.ended;
  const anew = await connect(url, device, { machine: { ...laptop, bootHash: "b9", machineHash: "m9" } });
  await rebooted.ended;
  await connect(url, device);
  await anew.ended;
});

test("a second daemon with the machine's own ids is turned down while the first one beats, and waits while that is not known", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const daemon = (daemonId: string, seconds: bigint) => ({
    machine: { ...laptop, daemonId, daemonAge: { seconds } },
  });
  const first = await connect(url, device, daemon("d1", 1n));
  const refused = async (hello: ReturnType<typeof daemon>) => {
    const second = dial(url, device.token);
    second.hello(device, hello);
    return second.ended;
  };
  const early = await refused(daemon("d2", 0n));
  expect(early).toMatchObject({
    code: status.UNAVAILABLE,
    details: expect.stringContaining("has not ended yet"),
  });
  const { device: before } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(before?.duplicate).toBeUndefined();
  const late = await refused(daemon("d2", 3_600n));
  expect(late).toMatchObject({
    code: status.FAILED_PRECONDITION,
    details: expect.stringMatching(/connected by another daemon on laptop.*has a copy of its identity/),
  });
  await first.beat([]);
  const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(seen?.duplicate).toMatchObject({ hostName: "laptop" });
  // The daemon itself comes back at once, whatever the server knows of its stream.
  await connect(url, device, daemon("d1", 3_601n));
  await first.ended;
});

test("whichever connects first after a restart, the daemon whose run goes on keeps the device", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const daemon = (name: string, seconds: bigint) => ({ ...laptop, daemonId: name, daemonAge: { seconds } });
  const first = await connect(url, device, { machine: daemon("d1", 60n) });
  const run = await startWork(clients, device);
  const assignment = await takeOn(first);
  await untilStatus(clients, { workId: run.id }, RunStatus.RUNNING);
  first.cancel();
  await untilDisconnected(clients, device);

  const refused = async (machine: object) => {
    const stream = dial(url, device.token);
    stream.hello(device, { machine });
    return stream.ended;
  };
  // Alive all the time, begun just now, and on another machine.
  expect(await refused(daemon("d2", 3_600n))).toMatchObject({ code: status.FAILED_PRECONDITION });
  expect(await refused(daemon("d3", 0n))).toMatchObject({
    code: status.UNAVAILABLE,
    details: expect.stringContaining("its runs go on"),
  });
  expect(await refused({ ...copy, daemonAge: { seconds: 0n } })).toMatchObject({ code: status.UNAVAILABLE });
  const back = await connect(url, device, { machine: daemon("d1", 61n), held: [heldOf(assignment)] });
  expect(back.welcome.verdicts).toMatchObject([{ verdict: HeldVerdict.CONTINUE }]);
  await back.complete(assignment);
  await untilStatus(clients, { workId: run.id }, RunStatus.COMPLETED);
  expect(await getRun(clients, { workId: run.id })).toMatchObject({ attempt: 1 });
});

test("of two clones, made with their memory, one keeps the device, and people are told", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const daemon = { ...laptop, daemonId: "d1", daemonAge: { seconds: 60n } };
  const original = await connect(url, device, { machine: daemon });
  const { sessionEpoch } = original.welcome;
  const remembering = { machine: { ...daemon, sessionEpoch } };
  const clone = await connect(url, device, remembering);
  await original.ended;
  // A daemon whose welcome was lost: nothing came in the later session.
  const again = await connect(url, device, remembering);
  await clone.ended;
  await again.beat([]);
  await untilBeaten(device);
  const second = dial(url, device.token);
  second.hello(device, remembering);
  expect(await second.ended).toMatchObject({
    code: status.FAILED_PRECONDITION,
    details: expect.stringMatching(/connected by a clone of this daemon on laptop.*enroll --anew/),
  });
  await again.beat([]);
  const { events } = await clients.events.listEvents({ kinds: ["device.duplicate_refused"] });
  expect(events.find(({ deviceId }) => deviceId === device.deviceId)?.data).toMatchObject({ rival: "clone" });
  const env = { HOME: "/nonexistent", PINION_URL: url, PINION_TOKEN: replicas.here.token };
  expect((await runCommand(env, "doctor")).out).toMatch(
    /a second daemon on laptop, or on a clone of it, has a copy/,
  );
  // The daemon of the last session comes back to it.
  const own = { machine: { ...daemon, sessionEpoch: again.welcome.sessionEpoch } };
  await connect(url, device, own);
  await again.ended;
});

test("workers with one installation, as made from one image, do not replace each other", async () => {
  const { clients, url } = replicas.here;
  const worker = workerIdentity(await fleetToken(clients));
  const first = await connectWorker(url, worker, { machine: laptop });
  const second = dial(url, worker.token);
  second.hello(worker, { machine: copy });
  expect(await second.ended).toMatchObject({
    code: status.FAILED_PRECONDITION,
    details: expect.stringContaining("give this worker a state directory of its own"),
  });
  await first.beat([]);
});

test("once the first machine is gone, another one is let in", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const first = await connect(url, device, { machine: laptop });
  first.cancel();
  await untilDisconnected(clients, device);
  await connect(url, device, { machine: copy });
  const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(seen?.hostName).toBe("build-7");
});

test("`device enroll --anew` makes the copy a device of its own, and leaves the first one its token", async () => {
  const { clients, url } = replicas.here;
  const home = await temporaryDirectory();
  const stateDir = join(home, "state");
  const enrol = async (...more: string[]) => {
    const { joinCode } = await clients.fleet.createJoinCode({});
    const args = [
      "--url",
      url,
      "--json",
      "device",
      "enroll",
      "--join-code",
      joinCode,
      "--state-dir",
      stateDir,
    ];
    const ended = await runCommand({ HOME: home }, ...args, ...more);
    expect(ended).toMatchObject({ code: 0, err: "" });
    return (await findIdentity(stateDir))!;
  };
  const first = await enrol();
  const again = await enrol();
  expect(again.deviceId).toBe(first.deviceId);
  const copied = await enrol("--anew");
  expect(copied.deviceId).not.toBe(first.deviceId);
  expect(copied.installId).not.toBe(first.installId);
  await connect(url, { ...again, label: "first" }, { machine: laptop });
  await connect(url, { ...copied, label: "copy" }, { machine: copy });
});

test("what is another machine", () => {
  const here = { machineHash: "m", bootHash: "b" };
  expect(isOtherMachine(here, here)).toBe(false);
  expect(isOtherMachine(here, { machineHash: "x", bootHash: "y" })).toBe(true);
  expect(isOtherMachine(here, { machineHash: "m", bootHash: "y" })).toBe(false);
  expect(isOtherMachine(here, { machineHash: "x", bootHash: "b" })).toBe(false);
  expect(isOtherMachine(here, { machineHash: "", bootHash: "y" })).toBe(true);
  expect(isOtherMachine(here, {})).toBe(false);
  expect(isOtherMachine({}, here)).toBe(false);
});

const ended = (change: Partial<LastSession>): LastSession => ({
  ...{ epoch: 7, isOpen: false, silentMs: 30_000, isBeaten: true, running: ["t1"] },
  ...change,
});
const newcomer = (change: Partial<Newcomer["machine"]>, more: Partial<Newcomer> = {}): Newcomer => ({
  machine: { ...laptop, arch: "x64", daemonId: "d2", ...change },
  ...{ daemonAgeMs: 1_000, sessionEpoch: 0n, held: new Set(), ...more },
});
const current = { ...laptop, daemonId: "d1" };
const heard = { ttlMs: 60_000, isQuiet: false };
const holding = { held: new Set(["t1"]) };

test.each<[string, LastSession, Newcomer, typeof heard, ReturnType<typeof rivalOf>]>([
  ["ended without attempts", ended({ running: [] }), newcomer({}), heard, undefined],
  ["a reboot that reports the attempts", ended({}), newcomer({ bootHash: "b9" }, holding), heard, undefined],
  ["a reboot that lost the attempts", ended({}), newcomer({ bootHash: "b9" }), heard, "perhaps_ended"],
  ["another machine with the journal", ended({}), newcomer(copy, holding), heard, "perhaps_ended"],
  ["a copy that was alive", ended({}), newcomer({}, { daemonAgeMs: 90_000, ...holding }), heard, "daemon"],
  ["silent for the TTL", ended({ silentMs: 60_000 }), newcomer({}), heard, undefined],
  [
    "no replica listened",
    ended({ silentMs: 9e9 }),
    newcomer({}),
    { ...heard, isQuiet: true },
    "perhaps_ended",
  ],
  [
    "after a failover",
    ended({ epoch: 5 }),
    newcomer({ daemonId: "d1" }, { sessionEpoch: 6n }),
    heard,
    undefined,
  ],
  [
    "of 2^53 + 1",
    ended({ epoch: 2 ** 53 }),
    newcomer({ daemonId: "d1" }, { sessionEpoch: 2n ** 53n + 1n }),
    heard,
    undefined,
  ],
  ["a clone's runs", ended({}), newcomer({ daemonId: "d1" }, { sessionEpoch: 6n }), heard, "clone"],
])("who waits for a daemon that is away: %s", (_, last, asking, limits, kind) => {
  expect(rivalOf(current, last, asking, limits)).toBe(kind);
});
