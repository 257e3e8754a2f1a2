/** The configuration may be edited, and be wrong, while a daemon runs. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { loadLastingConfig, readStatus, runDaemon } from "../../../clients/ts/src/index.ts";
import { machineFingerprint } from "../../../clients/ts/src/machine.ts";
import { Events, makeStateDir, startPeer, until } from "./harness.ts";
import { quickTiming } from "./timing.ts";

const config = (kinds: Record<string, string>, more = "") =>
  `[device]\nmax_concurrency = 2\n${more}\n${Object.entries(kinds)
    .map(([kind, script]) => `[executors.${kind}]\ncommand = ["sh", "-c", ${JSON.stringify(script)}]\n`)
    .join("\n")}`;

function startFrom(url: string, file: string, stateDir: string) {
  const events = new Events();
  const controller = new AbortController();
  let reload = () => {};
  const { config: loaded, problem } = loadLastingConfig(file, stateDir);
  const finished = runDaemon({
    url,
    token: "pin_dev_test",
    stateDir,
    config: loaded,
    configFile: file,
    ...(problem === undefined ? {} : { configProblem: problem }),
    onReload: (read) => {
      reload = read;
      return () => {};
    },
    signal: controller.signal,
    onEvent: events.add,
    timing: quickTiming,
    stopGraceMs: 100,
  });
  const stop = async () => {
    controller.abort();
    await finished;
  };
  onTestFinished(() => stop().catch(() => {}));
  return { events, reload: () => reload(), stop };
}

test("a wrong file leaves the configuration before it in force, also over a restart, and everybody is told; a good one takes its place", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const file = join(stateDir, "device.toml");
  // The attempt goes on until the second session has heard of it.
  const gate = join(stateDir, "gate");
  writeFileSync(file, config({ one: `until [ -e ${gate} ]; do sleep 0.05; done; echo one` }));
  const daemon = startFrom(peer.url, file, stateDir);
  const first = await peer.session();
  expect(first.hello).toMatchObject({ agentKinds: ["one"], configProblem: "" });
  const running = first.assign({ agentKind: "one" });
  await first.next("accept");

  writeFileSync(file, "[device]\nmax_concurrency = 0\n[executors.one]\ncomand = []\n");
  daemon.reload();
  expect((await daemon.events.next("configured")).problem).toMatch(/device.toml:2: device.max_concurrency/);
  const second = await peer.session();
  expect(second.hello.configProblem).toMatch(/max_concurrency/);
  // The running attempt continues, and new assignments run as before.
  expect(second.hello.held).toMatchObject([{ workId: running.workId }]);
  writeFileSync(gate, "");
  expect(await second.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, output: "one\n" });
  await until(
    () => readFileSync(join(stateDir, "status.json"), "utf8").includes("max_concurrency"),
    "the status",
  );
  expect(await readStatus(stateDir)).toMatchObject({
    configFile: file,
    configProblem: expect.stringContaining("device.toml:2"),
  });

  await daemon.stop();
  const again = startFrom(peer.url, file, stateDir);
  const third = await peer.session();
  expect(third.hello).toMatchObject({ agentKinds: ["one"] });
  expect(third.hello.configProblem).toMatch(/max_concurrency/);

  writeFileSync(file, config({ one: "echo one", two: "echo two" }, 'label = "renamed"'));
  again.reload();
  const fourth = await peer.session();
  expect(fourth.hello).toMatchObject({ agentKinds: ["one", "two"], configProblem: "", label: "renamed" });
  fourth.assign({ agentKind: "two" });
  expect(await fourth.next("complete")).toMatchObject({ outcome: Outcome.COMPLETED, output: "two\n" });
});

test("a file that changes is read again by itself, and one that is gone is no reason to stop", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const file = join(stateDir, "device.toml");
  writeFileSync(file, config({ one: "echo one" }));
  const daemon = startFrom(peer.url, file, stateDir);
  await peer.session();
  rmSync(file);
  expect((await daemon.events.next("configured")).problem).toMatch(/no such file/);
  writeFileSync(file, config({ three: "echo three" }));
  await daemon.events.next("configured", ({ problem }) => problem === "");
  await until(() => peer.sessions.some(({ hello }) => hello.agentKinds[0] === "three"), "the new kinds");
});

test("without any configuration that was ever good, a wrong one is an error", () => {
  const stateDir = makeStateDir();
  const file = join(stateDir, "device.toml");
  writeFileSync(file, "nonsense");
  expect(() => loadLastingConfig(file, stateDir)).toThrow(/device.toml:1/);
});

test("a machine is known by two ids that say nothing of it, and an installation's fingerprint is its own", async () => {
  const [here, copy] = [makeStateDir(), makeStateDir()];
  const one = await machineFingerprint("install-0001", here);
  expect(await machineFingerprint("install-0001", here)).toEqual({ ...one, startedAt: expect.any(Number) });
  const copied = await machineFingerprint("install-0001", copy);
  expect(copied).toEqual({ ...one, daemonId: expect.any(String), startedAt: expect.any(Number) });
  expect(copied.daemonId).not.toBe(one.daemonId);
  const early = await machineFingerprint("install-0001", join(here, "not made yet"));
  expect(early).toEqual({ ...one, daemonId: expect.stringMatching(/./), startedAt: expect.any(Number) });
  const other = await machineFingerprint("install-0002", here);
  if (process.platform === "linux") {
    expect(one.bootHash).toMatch(/^[0-9a-f]{32}$/);
    expect(other.bootHash).not.toBe(one.bootHash);
  }
});
