/**
 * A real daemon's process: its configuration is read again while it runs, and no stray error ends
 * it.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { saveIdentity } from "../../clients/ts/src/identity.ts";
import { startPeer, until } from "../integration/client/harness.ts";
import { startPinion, temporaryDirectory } from "../support/processes.ts";

const throwing = fileURLToPath(new URL("../support/throwing.ts", import.meta.url));

const config = (...kinds: string[]) =>
  kinds.map((kind) => `[executors.${kind}]\ncommand = ["sh", "-c", "echo ${kind}"]\n`).join("\n");

async function startDaemon(env: Record<string, string> = {}) {
  // A process takes long to start on a busy machine.
  const peer = await startPeer({ patienceMs: 60_000 });
  const stateDir = join(await temporaryDirectory(), "state");
  mkdirSync(stateDir, { mode: 0o700 });
  const { url } = peer;
  const ids = { installId: "install-0001", deviceId: "device-1", orgId: "local", token: "pin_dev_test" };
  await saveIdentity(stateDir, { ...ids, url });
  const file = join(stateDir, "device.toml");
  writeFileSync(file, config("one"));
  const daemon = startPinion(
    ["device", "run", "--json", "--state-dir", stateDir, "--config", file, "--backoff-max", "200ms"],
    env,
  );
  await daemon.line(/"type":"state"/);
  const session = await peer.session();
  return { peer, daemon, file, session };
}

test("SIGHUP has a daemon read its configuration again: a wrong one is told and the one before stays, a good one counts", async () => {
  const { peer, daemon, file, session } = await startDaemon();
  expect(session.hello).toMatchObject({ agentKinds: ["one"], configProblem: "" });
  writeFileSync(file, "[executors.one]\ncomand = []\n");
  daemon.child.kill("SIGHUP");
  await until(() => peer.sessions.at(-1)!.hello.configProblem !== "", "the problem is told");
  const told = peer.sessions.at(-1)!;
  expect(told.hello).toMatchObject({ agentKinds: ["one"], configProblem: expect.stringContaining("comand") });
  told.assign({ agentKind: "one" });
  expect(await told.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, output: "one\n" });

  writeFileSync(file, config("one", "two"));
  daemon.child.kill("SIGHUP");
  await until(() => peer.sessions.at(-1)!.hello.agentKinds.length === 2, "the new kinds are told");
  const mended = peer.sessions.at(-1)!;
  expect(mended.hello.configProblem).toBe("");
  mended.assign({ agentKind: "two" });
  expect(await mended.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, output: "two\n" });
  expect(daemon.child.exitCode).toBeNull();
});

test("what is thrown in a timer, and a rejection that nothing waits for, are told and end no daemon", async () => {
  const { daemon, session } = await startDaemon({ NODE_OPTIONS: `--import ${throwing}` });
  let told = "";
  daemon.child.stderr!.on("data", (data) => {
    told += data;
  });
  const running = session.assign({ agentKind: "one" });
  daemon.child.kill("SIGUSR2");
  await vi.waitFor(() => {
    expect(told).toMatch(/uncaught error \d \(uncaughtException\).*thrown from a timer/);
    expect(told).toMatch(/uncaught error \d \(unhandledRejection\).*rejected for nobody/);
  }, 5_000);
  expect(await session.next("complete")).toMatchObject({ workId: running.workId, output: "one\n" });
  session.assign({ agentKind: "one" });
  await until(() => session.all("complete").length === 2, "the next one is done, too");
  expect(daemon.child.exitCode).toBeNull();
});
