/**
 * A daemon replaces its own program by the server's newer program. The tests use real one-file
 * daemons, built from this checkout with different versions, and a newer version that ends at once.
 */
import { execFile, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { UpgradeMode } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { buildDaemon } from "../../support/built-daemon.ts";
import { useDatabase } from "../../support/database.ts";
import { noticeSkipped } from "../../support/notice.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";
import { untilStatus } from "../../support/work.ts";

const run = promisify(execFile);
const database = useDatabase({ per: "file" });
const place = mkdtempSync(join(tmpdir(), "pinion-upgrade-"));
const offered = join(place, "offered");
const home = join(place, "home");
const program = join(home, "bin/piniond");
const state = join(home, ".local/state/pinion/device");
const config = join(home, ".config/pinion/device.toml");
const system = `${process.platform}-${process.arch}`;
const file = `piniond-${system}.gz`;
const patienceMs = 60_000;
const newer = "9.1.0";
/** The program of a run ends after the creation of this file. */
const gate = join(place, "gate");

/** Waits with patience: a busy machine fetches and starts a program slowly. */
const eventually = (look: () => Promise<unknown> | unknown, what: string) =>
  vi.waitFor(
    async () => {
      if (!(await look())) throw new Error(`waited in vain for ${what}`);
    },
    { timeout: patienceMs, interval: 50 },
  );

const isPossible = process.platform === "linux";
if (!isPossible) noticeSkipped("a daemon's upgrade", "Linux");

const env = { HOME: home, PATH: "/usr/bin:/bin", LANG: "C.UTF-8" };

/** Makes the server offer the program as this version. */
function offer(version: string, packed: Buffer, sha256 = createHash("sha256").update(packed).digest("hex")) {
  writeFileSync(join(offered, file), packed);
  const downloads = [{ program: "piniond", system, file, bytes: packed.length, sha256 }];
  writeFileSync(join(offered, "manifest.json"), JSON.stringify({ version, downloads }));
}

/** A newer version that answers `--version`, and then hangs. */
const hanging = (version: string) =>
  gzipSync(`#!/bin/sh\n[ "$1" = --version ] && { echo ${version}; exit 0; }\nexec sleep 600\n`);

/** A newer version that answers `--version`, for the check, and fails at every other start. */
const broken = (version: string) =>
  gzipSync(`#!/bin/sh\n[ "$1" = --version ] && { echo ${version}; exit 0; }\necho broken >&2\nexit 9\n`);

/** Runs the upgrade without spawnSync, because the server is in the test's process. */
const upgrade = (...words: string[]) =>
  run(program, ["upgrade", ...words], { env, timeout: 120_000 }).then(
    ({ stdout, stderr }) => ({ status: 0, stdout, stderr }),
    ({ code, stdout, stderr }) => ({ status: Number(code), stdout: String(stdout), stderr: String(stderr) }),
  );

const record = () => JSON.parse(readFileSync(join(state, "upgrade.json"), "utf8")) as Record<string, unknown>;

describe.skipIf(!isPossible)("a daemon's upgrade", () => {
  let replica: TestReplica;
  let pid: number;
  let present: Buffer;
  let next: Buffer;

  const deviceOf = async (label: string) =>
    (await replica.clients.fleet.listDevices({})).devices.find((found) => found.label === label)!;
  const device = () => deviceOf("up");
  const isServing = async (version: string) => {
    const { appVersion, connectedAt, disconnectedAt } = await device();
    return appVersion === version && connectedAt !== undefined && disconnectedAt === undefined;
  };
  let version: string;

  beforeAll(async () => {
    const [first, second] = [await buildDaemon(), await buildDaemon(newer)];
    ({ version } = JSON.parse(readFileSync(join(first, "manifest.json"), "utf8")) as { version: string });
    present = readFileSync(join(first, file));
    next = readFileSync(join(second, file));
    for (const directory of [offered, join(home, "bin")]) mkdirSync(directory, { recursive: true });
    offer(version, present);
    writeFileSync(program, gunzipSync(present), { mode: 0o755 });
    replica = await openTestReplica(database.url, { PINION_DOWNLOADS: offered });

    const { joinCode } = await replica.clients.fleet.createJoinCode({});
    await run(program, ["enroll", "--url", replica.url, "--join-code", joinCode, "--label", "up"], { env });
    const text = readFileSync(config, "utf8");
    const slow = `\n[executors.slow]\ncommand = ["sh", "-c", "until [ -e ${gate} ]; do sleep 0.1; done; echo slow work"]\n`;
    writeFileSync(config, `${text}${slow}`);
    // A secret in the environment must survive every change of the program.
    const child = spawn(program, ["run", "--json"], {
      env: { ...env, HOUSE_SECRET: "of-the-house" },
      stdio: "ignore",
      detached: true,
    });
    pid = child.pid!;
    await eventually(() => isServing(version), "the daemon's first session");
    hung = await hangAnother();
    offer(version, present);
  }, 240_000);

  type Hung = {
    home: string;
    pid: number;
    beganAt: number;
    ended: Promise<{ status: number; stderr: string }>;
  };
  let hung: Hung;

  /** Another device with its own daemon, whose upgrade hangs while the other tests run. */
  async function hangAnother(): Promise<Hung> {
    const home = join(place, "another");
    mkdirSync(join(home, "bin"), { recursive: true });
    const program = join(home, "bin/piniond");
    writeFileSync(program, gunzipSync(present), { mode: 0o755 });
    const env = { HOME: home, PATH: "/usr/bin:/bin", LANG: "C.UTF-8" };
    const { joinCode } = await replica.clients.fleet.createJoinCode({});
    await run(program, ["enroll", "--url", replica.url, "--join-code", joinCode, "--label", "hung"], { env });
    const child = spawn(program, ["run", "--json"], { env, stdio: "ignore", detached: true });
    await eventually(async () => (await deviceOf("hung")).connectedAt !== undefined, "the other daemon");
    offer("9.0.5", hanging("9.0.5"));
    const ended = run(program, ["upgrade"], { env }).then(
      () => ({ status: 0, stderr: "" }),
      ({ code, stderr }) => ({ status: Number(code), stderr: String(stderr) }),
    );
    const record = join(home, ".local/state/pinion/device/upgrade.json");
    await eventually(
      () => existsSync(record) && readFileSync(record, "utf8").includes('"trying"'),
      "the trial",
    );
    return { home, pid: child.pid!, beganAt: performance.now(), ended };
  }

  afterAll(async () => {
    for (const each of [pid, hung?.pid]) if (each) process.kill(each, "SIGTERM");
    await eventually(() => !existsSync(join(state, "daemon.lock")), "the daemon's end");
    await replica?.stop();
    rmSync(place, { recursive: true, force: true });
  });

  test("nothing newer is told, and nothing is changed", async () => {
    const ended = await upgrade();
    expect(ended.status).toBe(1);
    expect(ended.stderr).toContain(`which is not newer than ${version}`);
    expect(JSON.parse((await upgrade("--check", "--json")).stdout)).toEqual({
      version,
      offered_version: version,
      is_newer: false,
      system,
    });
  });

  test("a file that is not what the server lists is not started", async () => {
    offer(newer, next, "0".repeat(64));
    const ended = await upgrade();
    expect(ended.status).toBe(1);
    expect(ended.stderr).toContain("is not what the server lists: SHA-256");
    expect(readdirSync(join(home, "bin"))).toEqual(["piniond"]);
  });

  test("a newer version that does not come up is undone, and the page's device says so", async () => {
    offer("9.0.0", broken("9.0.0"));
    const ended = await upgrade();
    expect(ended.status, ended.stderr).toBe(1);
    expect(ended.stderr).toContain("9.0.0 did not come up: the program ended with code 9");
    expect(record()).toMatchObject({ state: "rolled_back", from: version, to: "9.0.0" });
    await eventually(() => isServing(version), "the old daemon again");
    // The process is the same, so a service manager sees no change.
    expect(readFileSync(join(state, "daemon.lock"), "utf8")).toContain(`"pid":${pid}`);
    expect(readdirSync(join(home, "bin"))).toEqual(["piniond"]);
    await eventually(async () => (await device()).upgrade?.failedVersion === "9.0.0", "the told failure");
    expect((await device()).upgrade).toMatchObject({ mode: UpgradeMode.MANUAL });
  }, 120_000);

  test("a daemon that may upgrades itself once its runs have ended, and loses none", async () => {
    const { clients } = replica;
    const { watcher } = await clients.watchers.createWatcher({
      spec: { name: "Slow", prompt: "work", deviceId: (await device()).id, agentKind: "slow" },
    });
    const { run: slow } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    await untilStatus(clients, { workId: slow!.id }, RunStatus.RUNNING, patienceMs);
    offer(newer, next);
    writeFileSync(
      config,
      readFileSync(config, "utf8").replace("[device]\n", '[device]\nupgrade = "automatic"\n'),
    );
    await eventually(() => record().state === "waiting", "the wait for the run");
    writeFileSync(gate, "");
    const ended = await untilStatus(clients, { workId: slow!.id }, RunStatus.COMPLETED, patienceMs);
    expect(ended.attempt).toBe(1);
    await eventually(() => record().state === "kept", "the upgrade");
    // The parent has become the new program: the first process holds the state.
    await eventually(
      () => readLock().includes(`"pid":${pid}`) && !existsSync(join(home, "bin/.piniond.next")),
      "the new program in the old process",
    );
    await eventually(() => isServing(newer), "the new daemon");
    expect((await device()).upgrade).toMatchObject({ mode: UpgradeMode.AUTOMATIC, failedVersion: "" });
    expect(spawnSync(program, ["--version"], { env, encoding: "utf8" }).stdout.trim()).toBe(newer);
    // The new program has the secrets, and the environment of its process does not show them.
    expect(readFileSync(`/proc/${pid}/environ`, "utf8")).not.toContain("of-the-house");
    const status = spawnSync(program, ["status"], { env, encoding: "utf8" });
    expect(status.stdout).toContain(`upgraded from ${version} to ${newer}`);

    const { run: after } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    await untilStatus(clients, { workId: after!.id }, RunStatus.COMPLETED, patienceMs);
  }, 180_000);

  test("--anyway takes the server's program also if it is not newer", async () => {
    const ended = await upgrade("--anyway", "--json");
    expect(ended.status, ended.stderr).toBe(0);
    expect(JSON.parse(ended.stdout)).toEqual({ state: "kept", from: newer, to: newer, problem: "" });
    await eventually(() => readLock().includes(`"pid":${pid}`), "the daemon in its process");
  }, 120_000);

  test("a newer version that hangs is undone after 60 s, and the old one serves again in its process", async () => {
    const { status, stderr } = await hung.ended;
    const tookMs = performance.now() - hung.beganAt;
    expect(status).toBe(1);
    expect(stderr).toContain("9.0.5 did not come up: the server did not welcome the program within 60 s");
    expect(tookMs).toBeGreaterThan(55_000);
    await eventually(async () => {
      const { upgrade, connectedAt, disconnectedAt } = await deviceOf("hung");
      return upgrade?.failedVersion === "9.0.5" && connectedAt !== undefined && disconnectedAt === undefined;
    }, "the old daemon again");
    expect(readdirSync(join(hung.home, "bin"))).toEqual(["piniond"]);
    const lock = readFileSync(join(hung.home, ".local/state/pinion/device/daemon.lock"), "utf8");
    expect(lock).toContain(`"pid":${hung.pid}`);
  }, 120_000);

  const readLock = () =>
    existsSync(join(state, "daemon.lock")) ? readFileSync(join(state, "daemon.lock"), "utf8") : "";
});
