/**
 * The daemons of examples/, each against a real replica: they run due work, and lose and double
 * nothing when killed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { saveIdentity } from "@pinion/client";
import { describe, expect, onTestFinished, test } from "vitest";
import { CompletionVerdict } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../support/database.ts";
import { enrolDevice } from "../../support/device.ts";
import { Peer } from "../../support/peer.ts";
import { eventually, temporaryDirectory } from "../../support/processes.ts";
import { goDaemon, pythonDaemon, type Toolchain } from "../../support/toolchains.ts";
import { untilStatus, useReplicas } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

describe.each([
  ["Python", pythonDaemon],
  ["Go", goDaemon],
])("the daemon in %s", (name, prepare) => {
  /** Starts the daemon for the identity in the state directory. */
  async function start(skip: (note: string) => void, stateDir: string, url: string): Promise<ChildProcess> {
    const toolchain: Toolchain = await prepare();
    if ("missing" in toolchain) {
      console.error(`skipped, the daemon in ${name}: ${toolchain.missing}`);
      skip(toolchain.missing);
      throw new Error("skipped");
    }
    const [program, ...args] = toolchain.command;
    const child = spawn(program!, [...args, "sh"], {
      env: { PATH: process.env.PATH, ...toolchain.env, PINION_STATE_DIR: stateDir, PINION_URL: url },
      stdio: ["ignore", "ignore", "inherit"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    return child;
  }

  test("completes a run, with its output", { timeout: 240_000 }, async ({ skip }) => {
    const { clients, url } = replicas.here;
    const stateDir = await temporaryDirectory();
    const identity = await enrolDevice(clients);
    await saveIdentity(stateDir, { ...identity, orgId: "local", url });
    const daemon = await start(skip, stateDir, url);
    const { watcher } = await clients.watchers.createWatcher({
      spec: { name: `In ${name}`, prompt: "echo hello; exit 0", deviceId: identity.deviceId },
    });
    const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    await untilStatus(clients, { workId: run!.id }, RunStatus.COMPLETED, 20_000);
    const { windows } = await clients.runs.listWindows({ watcherId: watcher!.id });
    expect(windows).toMatchObject([{ extractedData: { output: "hello\n", exit_code: 0 } }]);
    const exited = once(daemon, "exit");
    daemon.kill("SIGTERM");
    expect((await exited)[0]).toBe(0);
  });

  test("killed before its result is acknowledged, the next one delivers it, once", {
    timeout: 180_000,
  }, async ({ skip }) => {
    const peer = await Peer.start();
    onTestFinished(() => peer.close());
    const stateDir = await temporaryDirectory();
    const installId = "install-0001";
    await saveIdentity(stateDir, {
      installId,
      deviceId: "d",
      orgId: "o",
      token: "pin_dev_test",
      url: peer.url,
    });
    const first = await start(skip, stateDir, peer.url);
    const session = await peer.session();
    expect(session.hello).toMatchObject({ installId, held: [] });
    peer.acknowledges = false;
    const { attemptToken } = session.assign({ prompt: "echo kept" });
    await session.next("accept");
    await session.next("complete");
    const exited = once(first, "exit");
    first.kill("SIGKILL");
    await exited;
    expect(readdirSync(join(stateDir, "outbox"))).toHaveLength(1);

    peer.acknowledges = true;
    peer.stored.clear();
    await start(skip, stateDir, peer.url);
    const next = await peer.session();
    expect(next.hello.held).toMatchObject([{ attemptToken }]);
    expect(await next.next("complete")).toMatchObject({ attemptToken, output: "kept\n" });
    await eventually(() => readdirSync(join(stateDir, "outbox")).length === 0, "an empty outbox");
    expect(peer.stored.get(attemptToken)?.times).toBe(1);
    expect(peer.violations).toEqual([]);
    // A result that was stored before is forgotten too, and a copy of its assignment starts
    // nothing.
    next.acknowledge({ workId: "r", attemptToken }, CompletionVerdict.ALREADY_STORED);
    next.end();
    expect((await peer.session()).hello.held).toEqual([]);
  });
});
