/** Two real daemons, of which one has a copy of the other's state directory, on one machine. */
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { saveIdentity } from "../../clients/ts/src/identity.ts";
import { runCommand } from "../support/command.ts";
import { useDatabase } from "../support/database.ts";
import { enrolDevice } from "../support/device.ts";
import { eventually, startPinion, temporaryDirectory } from "../support/processes.ts";
import { getRun, startWork, untilStatus, useReplicas } from "../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here", "there");

/** A program that notes its start, and ends once a file exists. */
const program = 'echo start >> "$1/starts"; while [ ! -e "$1/go" ]; do sleep 0.1; done; echo answered';

async function enrolled() {
  const { clients, url } = replicas.here;
  const home = await temporaryDirectory();
  const device = await enrolDevice(clients);
  const stateDir = join(home, "state");
  mkdirSync(stateDir, { mode: 0o700 });
  await saveIdentity(stateDir, { ...device, orgId: "local", url });
  const config = join(home, "device.toml");
  const command = JSON.stringify(["sh", "-c", program, "sh", home]);
  writeFileSync(config, `[executors.test]\ncommand = ${command}\n`);
  const start = (directory: string, at = url) =>
    startPinion([
      "device",
      "run",
      "--json",
      "--url",
      at,
      "--state-dir",
      directory,
      "--config",
      config,
      "--backoff-max",
      "500ms",
    ]);
  const starts = () =>
    existsSync(join(home, "starts")) ? readFileSync(join(home, "starts"), "utf8").split("\n").length - 1 : 0;
  return {
    clients,
    url,
    home,
    device,
    stateDir,
    start,
    starts,
    finish: () => writeFileSync(join(home, "go"), ""),
  };
}

test("a copy of a running daemon's state ends none of its programs, takes no session and begins no run twice", async () => {
  const { clients, home, device, stateDir, start, starts, finish } = await enrolled();
  const first = start(stateDir);
  await first.line(/"type":"connected"/);
  const run = await startWork(clients, device);
  await untilStatus(clients, { workId: run.id }, RunStatus.RUNNING);
  await eventually(() => starts() === 1 || undefined, "the program's start");
  // With the lock and the notes of running programs, as rsync takes them.
  const copy = join(home, "copy");
  cpSync(stateDir, copy, { recursive: true });

  const epoch = async () =>
    (await clients.fleet.getDevice({ deviceId: device.deviceId })).device!.sessionEpoch;
  const before = await epoch();
  const second = start(copy, replicas.there.url);
  await second.line(/"type":"retrying".*a copy of its identity/);
  const status = JSON.parse(
    (await runCommand({ HOME: home }, "--json", "device", "status", "--state-dir", copy)).out,
  );
  expect(status.connection_reason).toMatch(/device enroll --anew/);

  expect(await getRun(clients, { workId: run.id })).toMatchObject({ status: RunStatus.RUNNING, attempt: 1 });
  finish();
  const done = await untilStatus(clients, { workId: run.id }, RunStatus.COMPLETED);
  expect(done).toMatchObject({ attempt: 1 });
  expect(starts()).toBe(1);
  expect(await epoch()).toBe(before);
  const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(seen?.duplicate).toBeDefined();

  // The copy takes over once the first daemon has stopped.
  await first.kill("SIGTERM");
  await second.line(/"type":"connected"/);
});

test("a daemon that was killed is followed by the next one of its directory at once, which ends what it left", async () => {
  const { clients, device, stateDir, start, starts } = await enrolled();
  const first = start(stateDir);
  await first.line(/"type":"connected"/);
  const run = await startWork(clients, device);
  await untilStatus(clients, { workId: run.id }, RunStatus.RUNNING);
  await eventually(() => starts() === 1 || undefined, "the program's start");
  await first.kill("SIGKILL");
  const second = start(stateDir);
  await second.line(/"type":"swept"/);
  await second.line(/"type":"connected"/);
  const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(seen?.duplicate).toBeUndefined();
});
