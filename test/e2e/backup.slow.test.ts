/** The commands of docs/upgrades.md for a backup of the embedded database, tried. */
import { execFileSync } from "node:child_process";
import { chmod, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { createClients } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { connect, enrolDevice } from "../support/device.ts";
import { type PinionProcess, startPinion, temporaryDirectory } from "../support/processes.ts";

async function serve(data: string): Promise<{ server: PinionProcess; url: string }> {
  const server = startPinion(["serve", "--json", "--port", "0", "--data", data]);
  const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
  return { server, url };
}

test("a copy of the data directory, taken after a stop, starts elsewhere with everything in it, and a device goes on", {
  timeout: 120_000,
}, async () => {
  const folder = await temporaryDirectory();
  // As root, PostgreSQL runs as another user, who needs to traverse the directory.
  await chmod(folder, 0o711);
  const data = join(folder, "here");
  const first = await serve(data);
  const token = (await readFile(join(data, "token"), "utf8")).trim();
  const before = createClients({ url: first.url, token });
  const device = await enrolDevice(before);
  const stream = await connect(first.url, device);
  const { watcher } = await before.watchers.createWatcher({
    spec: { name: "Backed up", prompt: "do it", deviceId: device.deviceId },
  });
  const { run: done } = await before.watchers.triggerWatcher({ watcherId: watcher!.id });
  const assignment = await stream.next("assignment");
  stream.accept(assignment);
  await stream.complete(assignment, "kept");
  stream.cancel();
  const { run: waiting } = await before.watchers.triggerWatcher({ watcherId: watcher!.id });
  await first.server.kill("SIGTERM");

  const restored = join(folder, "there");
  await mkdir(restored, { mode: 0o711 });
  execFileSync("tar", ["-C", data, "-chpf", join(folder, "backup.tar"), "."]);
  await rm(data, { recursive: true, force: true });
  execFileSync("tar", ["-C", restored, "-xpf", join(folder, "backup.tar")]);

  const second = await serve(restored);
  onTestFinished(() => second.server.kill("SIGTERM"));
  const after = createClients({ url: second.url, token });
  const { run } = await after.runs.getRun({ runId: done!.id });
  expect(run!.status).toBe(RunStatus.COMPLETED);
  const { windows } = await after.runs.listWindows({ watcherId: watcher!.id });
  expect(windows.map((window) => window.extractedData?.output)).toEqual(["kept"]);
  const back = await connect(second.url, device);
  const next = await back.next("assignment");
  expect(next.workId).toBe(waiting!.id);
  back.accept(next);
  await back.complete(next, "after");
  expect((await after.runs.getRun({ runId: waiting!.id })).run!.status).toBe(RunStatus.COMPLETED);
});
