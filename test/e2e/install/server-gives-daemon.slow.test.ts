/**
 * The line of `pinion devices join-code`, typed on a machine that has neither Node nor Pinion: the
 * real one-file daemon, built from this checkout, comes from a real server into an empty home, and
 * completes a run. As root, another account stands for the other laptop.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { processorSecondsOf } from "../../../scripts/lib/processor-time.ts";
import { buildDaemon } from "../../support/built-daemon.ts";
import { useDatabase } from "../../support/database.ts";
import { noticeSkipped } from "../../support/notice.ts";
import { eventually } from "../../support/processes.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";
import { untilStatus } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const place = mkdtempSync(join(tmpdir(), "pinion-install-"));
let directory: string;
const system = `${process.platform}-${process.arch}`;
const patienceMs = 60_000;

const has = (name: string) =>
  (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, name)));
const missing = ["curl", "gzip", "sha256sum"].filter((name) => !has(name));
const isPossible = process.platform === "linux" && missing.length === 0;
if (!isPossible) noticeSkipped("a server gives its own daemon", `Linux, and ${missing.join(", ")}`);

const nobody = 65_534;
/** The typing accounts: this account, and as root another account as well. */
const accounts = process.getuid?.() === 0 ? [undefined, nobody] : [undefined];

type Ended = { code: number; out: string; err: string };

/**
 * An empty home of an account, and a shell in the home: without Node, and without a service manager
 * that answers.
 */
function homeOf(account: number | undefined) {
  const home = mkdtempSync(join(place, "home-"));
  chmodSync(home, 0o755);
  if (account !== undefined) chownSync(home, account, account);
  const env = { HOME: home, PATH: "/usr/bin:/bin", LANG: "C.UTF-8" };
  const type = (line: string): Promise<Ended> =>
    new Promise((done) => {
      const child = spawn("sh", ["-c", line], {
        cwd: home,
        env,
        ...(account === undefined ? {} : { uid: account, gid: account }),
        stdio: ["ignore", "pipe", "pipe"],
      });
      let [out, err] = ["", ""];
      child.stdout.on("data", (chunk) => {
        out += chunk;
      });
      child.stderr.on("data", (chunk) => {
        err += chunk;
      });
      // Not "close": the daemon in the background keeps none of our pipes open, but "close" would
      // wait for the daemon if one were open.
      child.on("exit", (code) => setImmediate(() => done({ code: code ?? -1, out, err })));
    });
  return { home, type };
}

describe.skipIf(!isPossible)("a server gives its own daemon", () => {
  let replica: TestReplica;

  beforeAll(async () => {
    chmodSync(place, 0o755);
    directory = await buildDaemon();
    replica = await openTestReplica(database.url, { PINION_DOWNLOADS: directory });
  }, 240_000);

  afterAll(async () => {
    await replica?.stop();
    rmSync(place, { recursive: true, force: true });
  });

  const joinCode = async () => (await replica.clients.fleet.createJoinCode({})).joinCode;

  test.each(accounts)(
    "one line makes an empty home (account %s) a device that completes a run",
    { timeout: 180_000 },
    async (account) => {
      const { clients, url } = replica;
      const { home, type } = homeOf(account);
      const label = `laptop-${account ?? "own"}`;
      const bin = join(home, ".local/bin");
      const state = join(home, ".local/state/pinion/device");
      const line = `curl -fsS ${url}/install.sh | sh -s -- ${await joinCode()} --label ${label} --bin-dir ${bin} --no-service --start`;
      const ended = await type(line);
      expect(ended.code, ended.err).toBe(0);
      expect(ended.out).toContain(`installed ${join(bin, "piniond")} `);
      expect(ended.out).toContain("it may run: machine-report (default)");
      const pid = Number(/process (\d+)/.exec(ended.out)?.[1]);
      try {
        const device = (await clients.fleet.listDevices({})).devices.find((found) => found.label === label)!;
        const { watcher } = await clients.watchers.createWatcher({
          spec: { name: `Of ${label}`, prompt: "report", deviceId: device.id },
        });
        const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
        await untilStatus(clients, { workId: run!.id }, RunStatus.COMPLETED, patienceMs);
        const { windows } = await clients.runs.listWindows({ watcherId: watcher!.id });
        expect(JSON.stringify(windows[0]?.extractedData)).toContain("Report of ");
        expect(
          processorSecondsOf([join(bin, "piniond"), "--help"], { PATH: "/usr/bin:/bin", HOME: home }),
        ).toBeLessThan(0.15);
        // The installed files belong to the account, and no other files were left.
        expect(readdirSync(bin)).toEqual(["piniond"]);

        const again = await type(`curl -fsS ${url}/install.sh | sh -s -- --bin-dir ${bin} --no-service`);
        expect(again.code, again.err).toBe(0);
        expect(again.out).toContain("this machine is a device already");
      } finally {
        process.kill(pid, "SIGTERM");
        await eventually(() => !existsSync(join(state, "daemon.lock")) || !isAlive(pid), "the daemon's end");
      }
    },
  );

  test("a download that is not what the list says is refused, and nothing is installed or enrolled", async () => {
    const { home, type } = homeOf(accounts.at(-1));
    const changed = join(place, "changed");
    mkdirSync(changed);
    const file = `piniond-${system}.gz`;
    const downloads = [{ program: "piniond", system, file, bytes: 5, sha256: "0".repeat(64) }];
    writeFileSync(join(changed, "manifest.json"), JSON.stringify({ downloads }));
    writeFileSync(join(changed, file), "wrong");
    const other = await openTestReplica(database.url, { PINION_DOWNLOADS: changed });
    try {
      const code = await joinCode();
      const ended = await type(
        `curl -fsS ${other.url}/install.sh | sh -s -- ${code}  --bin-dir ${home}/bin --no-service`,
      );
      expect(ended.code).toBe(1);
      expect(ended.err).toMatch(/^error: what came is not what the server lists: SHA-256/);
      expect(readdirSync(home)).toEqual([]);
      // The code was not used.
      expect(
        (
          await type(
            `curl -fsS ${replica.url}/install.sh | sh -s -- ${code} --bin-dir ${home}/bin --no-service`,
          )
        ).code,
      ).toBe(0);
    } finally {
      await other.stop();
    }
  }, 120_000);

  test("what is missing is said in words: a program for the system, a code, a code that is good", async () => {
    const { type } = homeOf(accounts.at(-1));
    const empty = await openTestReplica(database.url, { PINION_DOWNLOADS: join(place, "none") });
    try {
      const none = await type(`curl -fsS ${empty.url}/install.sh | sh -s -- CODE`);
      expect(none.code).toBe(1);
      expect(none.err).toContain(`has no program for ${system}`);
      expect(none.err).toContain("npm run build:executables");
    } finally {
      await empty.stop();
    }
    const codeless = await type(`curl -fsS ${replica.url}/install.sh | sh`);
    expect([codeless.code, codeless.err]).toEqual([1, expect.stringContaining("pinion devices join-code")]);
    const wrong = await type(
      `curl -fsS ${replica.url}/install.sh | sh -s -- ABCD-EFGH-JKMN-PQRS --bin-dir "$HOME/bin" --no-service`,
    );
    expect(wrong.code).not.toBe(0);
    expect(wrong.err).toContain("pinion devices join-code");
  }, 60_000);

  test("a script that was cut off on its way does nothing", async () => {
    const { home, type } = homeOf(accounts.at(-1));
    const text = await (await fetch(`${replica.url}/install.sh`)).text();
    for (const share of [0.3, 0.6, 0.95]) {
      writeFileSync(join(place, "cut.sh"), text.slice(0, Math.floor(text.length * share)));
      await type(`sh ${join(place, "cut.sh")} CODE`);
    }
    expect(readdirSync(home)).toEqual([]);
  });

  test("the daemon's bill of materials names what is in it, and its digest is the one that is listed", () => {
    const bom = JSON.parse(readFileSync(join(directory, `piniond-${system}.cdx.json`), "utf8"));
    expect(bom).toMatchObject({ bomFormat: "CycloneDX", metadata: { component: { name: "piniond" } } });
    const names = bom.components.map(({ name }: { name: string }) => name);
    expect(names).toContain("@grpc/grpc-js");
    expect(names).toContain(`node-${system}`);
    expect(names).not.toContain("prom-client");
    execFileSync("sha256sum", ["--check", "--quiet", "SHA256SUMS"], { cwd: directory });
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
