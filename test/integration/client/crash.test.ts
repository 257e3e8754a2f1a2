import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import { startTimeOf } from "../../../clients/ts/src/process-table.ts";
import { Events, makeStateDir, settledSession, startDaemon, startPeer, until } from "./harness.ts";

const agent = (script: string) => `[executors.test]\ncommand = ["sh", "-c", ${JSON.stringify(script)}]\n`;

/** A daemon in its own process. */
function spawnDaemon(url: string, stateDir: string, config: string): { child: ChildProcess; events: Events } {
  const script = join(import.meta.dirname, "daemon-process.ts");
  const child = spawn(process.execPath, [script, JSON.stringify({ url, stateDir, config })], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const events = new Events();
  if (child.stdout !== null) createInterface(child.stdout).on("line", (line) => events.add(JSON.parse(line)));
  onTestFinished(() => {
    child.kill("SIGKILL");
  });
  return { child, events };
}

async function killHard(child: ChildProcess): Promise<void> {
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

const isAlive = async (pid: number) => (await startTimeOf(pid)) !== undefined;

test("a daemon killed between the end of a program and the acknowledgement delivers the result once, after its restart", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  const stateDir = makeStateDir();
  const first = spawnDaemon(peer.url, stateDir, agent("echo precious"));
  const session = await settledSession(peer);
  const { attemptToken } = session.assign();
  await session.next("complete");
  await killHard(first.child);
  // The server that received the completion crashed before storing it.
  peer.stored.clear();
  peer.acknowledges = true;
  const second = spawnDaemon(peer.url, stateDir, agent("echo again"));
  const next = await peer.session();
  expect(next.hello.held).toMatchObject([{ attemptToken, state: HeldAttemptState.FINISHED }]);
  await second.events.next("acknowledged");
  expect(peer.stored.get(attemptToken)).toMatchObject({ times: 1, completion: { output: "precious\n" } });
  await until(
    () => readdirSync(join(stateDir, "outbox")).every((name) => !name.endsWith(".completion")),
    "forgotten",
  );
  const exited = once(second.child, "exit");
  second.child.kill("SIGTERM");
  expect((await exited)[0]).toBe(0);
});

test("agents that a killed daemon left running are ended by the next one, which does not list them", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const script = "echo $$; setsid sh -c 'echo $$; exec sleep 600' & sh -c 'echo $$; exec sleep 600'";
  const first = spawnDaemon(peer.url, stateDir, agent(script));
  const session = await settledSession(peer);
  const { workId } = session.assign();
  await first.events.next("started");
  let printed = "";
  while (printed.trim().split("\n").length < 3) {
    const { data } = await session.next("output");
    printed += Buffer.from(data).toString();
  }
  const pids = printed.trim().split("\n").map(Number);
  await until(() => hasStartTime(stateDir), "the journal names the process");
  await killHard(first.child);
  expect(await Promise.all(pids.map(isAlive))).toEqual([true, true, true]);
  const second = spawnDaemon(peer.url, stateDir, agent("true"));
  const next = await peer.session();
  expect(next.hello.held).toEqual([]);
  expect(await second.events.next("swept")).toMatchObject({ workIds: [workId] });
  const stillAlive = (await Promise.all(pids.map(isAlive))).filter((alive) => alive);
  expect(stillAlive).toHaveLength(process.platform === "linux" ? 0 : 1);
});

test("a process that merely has the process id of a leftover is not touched", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const stranger = spawn("sleep", ["600"], { detached: true, stdio: "ignore" });
  onTestFinished(() => {
    stranger.kill("SIGKILL");
  });
  const attempts = join(stateDir, "attempts");
  mkdirSync(attempts, { recursive: true });
  const note = { workId: "r", attemptToken: "t", pid: stranger.pid, startTime: "another boot:1" };
  writeFileSync(join(attempts, "t.json"), JSON.stringify(note));
  writeFileSync(join(attempts, "torn.json"), '{"workId":');
  const daemon = startDaemon(peer.url, agent("true"), { stateDir });
  await daemon.events.next("connected");
  expect(await isAlive(stranger.pid ?? 0)).toBe(true);
  expect(daemon.events.of("swept")).toEqual([]);
  expect(readdirSync(attempts)).toEqual([]);
});

test("a second daemon is refused while the first one lives, and takes over when it was killed", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const first = spawnDaemon(peer.url, stateDir, agent("true"));
  await first.events.next("connected");
  const refused = startDaemon(peer.url, agent("true"), { stateDir });
  await expect(refused.finished).rejects.toMatchObject({ reason: "locked" });
  await killHard(first.child);
  expect(existsSync(join(stateDir, "daemon.lock"))).toBe(true);
  const second = startDaemon(peer.url, agent("true"), { stateDir });
  await second.events.next("connected");
  await second.stop();
  expect(existsSync(join(stateDir, "daemon.lock"))).toBe(false);
});

test("a lock whose process id belongs to another process by now is taken over", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  writeFileSync(
    join(stateDir, "daemon.lock"),
    JSON.stringify({ pid: process.pid, startTime: "another boot:1" }),
  );
  const daemon = startDaemon(peer.url, agent("true"), { stateDir });
  await daemon.events.next("connected");
});

function hasStartTime(stateDir: string): boolean {
  const attempts = join(stateDir, "attempts");
  return readdirSync(attempts).some(
    (name) => name.endsWith(".json") && readFileSync(join(attempts, name), "utf8").includes("startTime"),
  );
}
