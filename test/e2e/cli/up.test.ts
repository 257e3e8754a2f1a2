/**
 * The real command as a user runs it: child processes, an embedded PostgreSQL, a daemon, a port
 * chosen by the system. One `up` serves the whole file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { type Ended, temporaryHome, untilPrinted } from "./home.ts";

const main = inject("pinionMain");
const { home, env, run } = temporaryHome();
const data = join(home, "data");
const startTimeoutMs = 60_000;

const pinion = (...args: string[]) => run({ PINION_DATA: data }, ...args);

function json(ended: Ended) {
  expect(ended.err).toBe("");
  return JSON.parse(ended.out);
}

let up: ChildProcess;
let first: Ended;

beforeAll(async () => {
  first = await pinion("up", "--once", "--json");
  up = spawn(process.execPath, [main, "up"], { env: { ...env, PINION_DATA: data }, cwd: home });
  await untilPrinted(up, /What next/);
}, 2 * startTimeoutMs);

afterAll(async () => {
  // The files of this test are removed after the end of every process that used them.
  if (up?.exitCode === null) {
    up.kill("SIGINT");
    await once(up, "exit");
  }
  rmSync(home, { recursive: true, force: true });
}, startTimeoutMs);

test("a fresh machine comes up, runs something true, stores it, and stops", () => {
  expect(first.code, first.err).toBe(0);
  const result = JSON.parse(first.out.trimEnd().split("\n").at(-1)!);
  expect(result.status).toBe("completed");
  expect(result.run_id).toMatch(/^[0-9a-f-]{36}$/);
  expect(result.window_id).toMatch(/^[0-9a-f-]{36}$/);
  expect(result.output).toContain("Report of ");
  expect(result.push_ms).toBeLessThan(10_000);
  expect(result.store_ms).toBeLessThan(10_000);
});

test("the second start is the same device, and runs again", async () => {
  const devices = json(await pinion("devices", "list", "--json")).devices;
  expect(devices).toHaveLength(1);
  expect(devices[0].liveness).toBe("LIVENESS_ONLINE");
  const { runs } = json(await pinion("runs", "list", "--status", "completed", "--json"));
  expect(runs.length).toBeGreaterThanOrEqual(2);
});

test("the token is kept where only its owner reads it", () => {
  expect(statSync(join(data, "token")).mode & 0o777).toBe(0o600);
  expect(readFileSync(join(data, "token"), "utf8")).toMatch(/^pin_pat_/);
});

test("a watcher is made, triggered and watched to its end", async () => {
  const [device] = json(await pinion("devices", "list", "--json")).devices;
  const made = await pinion("watchers", "create", "mine", "--prompt", "Report.", "--device", device.label);
  expect(made, made.err).toMatchObject({ code: 0, out: "mine\n" });
  const triggered = await pinion("watchers", "trigger", "mine");
  const watched = await pinion("runs", "watch", triggered.out.trim(), "--exit-status");
  expect(watched.code, watched.err).toBe(0);
  expect(watched.out).toContain("Report of ");
  expect(watched.err).toContain("completed");
  const explained = await pinion("runs", "explain", triggered.out.trim());
  expect(explained.out).toContain("completed");
  const { windows } = json(await pinion("windows", "list", "mine", "--json"));
  expect(windows[0].extracted_data.output).toContain("Report of ");
});

test("a turn on the device is told as a turn, and nothing is looked for in vain", async () => {
  const [device] = json(await pinion("devices", "list", "--json")).devices;
  await pinion("agents", "create", "chatter");
  const pinned = await pinion("agents", "update", "chatter", "--device", device.label);
  expect(pinned.code, pinned.err).toBe(0);
  const printed = untilPrinted(up, /turn [0-9a-f-]{36} (completed|failed)/);
  const turn = await pinion("turns", "start", "hello", "--agent", "chatter");
  expect(turn.code, turn.err).toBe(0);
  const told = await printed;
  expect(told).toMatch(/turn [0-9a-f-]{36} started/);
  expect(told).not.toContain("out of sight");
});

test("the doctor finds nothing wrong with a machine that is well", async () => {
  const { healthy, checks } = json(await pinion("doctor", "--json"));
  expect(checks.filter((check: { verdict: string }) => check.verdict === "bad")).toEqual([]);
  expect(healthy).toBe(true);
});

test("what goes wrong has an exit code and says what to do", async () => {
  expect(await pinion("runs", "list", "--url", "http://127.0.0.1:1")).toMatchObject({ code: 3 });
  expect((await pinion("runs", "list", "--url", "http://127.0.0.1:1")).err).toContain("pinion up");
  expect(await pinion("runs", "list", "--token", "nonsense")).toMatchObject({ code: 4 });
  expect(await pinion("watchers", "get", "nobody")).toMatchObject({ code: 5 });
  expect(await pinion("watchers", "create", "mine", "--prompt", "x")).toMatchObject({ code: 6 });
  expect(await pinion("runs", "get", "0198c1de")).toMatchObject({ code: 5 });
  const { err } = await pinion("watchers", "create", "bad", "--prompt", "x", "--schedule", "not a cron");
  expect(err).toMatch(/schedule|cron/i);
  expect(err).not.toContain("    at ");
});

test("a taken port is refused before anything is started", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const { port } = holder.address() as { port: number };
  const elsewhere = join(home, "elsewhere");
  const refused = await pinion("up", "--data", elsewhere, "--port", String(port));
  holder.close();
  expect(refused.code).toBe(6);
  expect(refused.err).toContain(`port ${port} is taken`);
  expect(refused.err).toContain("--port");
});

test("a second start in the same directory is refused with a way out, for scripts as JSON", async () => {
  const refused = await pinion("up", "--once", "--json");
  expect(refused.code).toBe(6);
  const told = JSON.parse(refused.out.trimEnd().split("\n").at(-1)!);
  expect(told.status).toBe("error");
  expect(told.error).toContain("Another Pinion");
  expect(told.advice).toContain("--data");
});

test("a configuration that was never good is named with file and line", async () => {
  const place = join(home, "misconfigured-from-the-start");
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, "device.toml"), "[device]\nmax_concurrency = = 2\n");
  const refused = await pinion("up", "--data", place);
  expect(refused.code).toBe(2);
  expect(refused.err).toContain(`${join(place, "device.toml")}:2: `);
}, 60_000);

test("Ctrl-C stops server, daemon and database, each in its turn", { timeout: 30_000 }, async () => {
  const daemon = JSON.parse(readFileSync(join(data, "device", "daemon.lock"), "utf8")) as { pid: number };
  // The URL is explicit, because by default a command calls the usual port, where another server
  // may run.
  const url = readFileSync(join(data, "url"), "utf8").trim();
  let said = "";
  up.stdout!.on("data", (chunk) => {
    said += chunk;
  });
  up.kill("SIGINT");
  const [code] = await once(up, "close");
  expect(code).toBe(0);
  expect(said.trimEnd().split("\n").at(-1)).toContain("stopped");
  expect(() => process.kill(daemon.pid, 0)).toThrow("ESRCH");
  expect(await pinion("runs", "list", "--url", url)).toMatchObject({ code: 3 });
});

test("a restart triggers nothing that costs money, and says how it is triggered", async () => {
  const counted = join(home, "counted");
  const file = join(data, "device.toml");
  const agent = `[executors.agent]\ncommand = ["touch", ${JSON.stringify(counted)}]\n`;
  const text = readFileSync(file, "utf8").replace(/^default_executor = .*$/m, 'default_executor = "agent"');
  writeFileSync(file, `${text}\n${agent}`);
  up = spawn(process.execPath, [main, "up"], { env: { ...env, PINION_DATA: data }, cwd: home });
  const printed = await untilPrinted(up, /What next/);
  expect(printed).toContain("agent would do it and may cost money, so a restart triggers nothing:");
  expect(printed).toContain("watchers trigger daily-checkin --watch");
  expect(existsSync(counted)).toBe(false);
}, 60_000);
