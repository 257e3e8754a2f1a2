/** Commands whose pipes, files and signals are odd: real processes. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, inject, onTestFinished, test, vi } from "vitest";
import { useDatabase } from "../../support/database.ts";
import { temporaryDirectory } from "../../support/processes.ts";

const database = useDatabase({ per: "file" });

/** Each write to it fails with ENOSPC. */
const fullDisk = "/dev/full";
const hasFullDisk = existsSync(fullDisk);

function start(args: string[], stdio: ("ignore" | "pipe" | number)[]): ChildProcess {
  const child = spawn(process.execPath, [inject("pinionMain"), ...args], {
    stdio,
    // A process group of its own, for signals to a whole group.
    detached: true,
    env: { ...process.env, DATABASE_URL: database.url, HOME: "/nonexistent" },
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  return child;
}

test.skipIf(!hasFullDisk)(
  "a command whose output meets a full disk says so in a line, and has failed",
  async () => {
    const command = start(["--help"], ["ignore", openSync(fullDisk, "w"), "pipe"]);
    const [told, [code]] = await Promise.all([text(command.stderr!), once(command, "exit")]);
    expect(told).toMatch(/^error: the output cannot be written: ENOSPC.*\n$/);
    expect(code).toBe(1);
  },
);

test.skipIf(!hasFullDisk)("notes that nobody can read change no exit code", async () => {
  const full = openSync(fullDisk, "w");
  for (const [args, expected] of [
    [["context", "list"], 0],
    [["runs", "get"], 2],
  ] as const) {
    const onFullDisk = start([...args], ["ignore", "ignore", full]);
    expect((await once(onFullDisk, "exit"))[0], `${args} on a full disk`).toBe(expected);
    const unread = start([...args], ["ignore", "ignore", "pipe"]);
    unread.stderr!.destroy();
    expect((await once(unread, "exit"))[0], `${args} without a reader`).toBe(expected);
  }
});

/** A server on the test's database that has come up, with the file of its address. */
async function serve(stdio: ("ignore" | "pipe" | number)[]) {
  const data = await temporaryDirectory();
  const file = join(data, "url");
  const child = start(["serve", "--port", "0", "--data", data], stdio);
  // Readers of pipes are gone from the beginning.
  child.stdout?.destroy();
  child.stderr?.destroy();
  const url = await vi.waitFor(() => readFile(file, "utf8"), { timeout: 45_000, interval: 50 });
  return { child, file, url: url.trim() };
}

test.skipIf(!hasFullDisk)(
  "a server whose output and log meet a full disk serves, and stops when asked",
  async () => {
    const full = openSync(fullDisk, "w");
    const { child, url } = await serve(["ignore", full, full]);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    child.kill("SIGTERM");
    expect(await once(child, "exit")).toEqual([0, null]);
  },
);

test("a server whose reader is gone serves, and a signal that arrives twice stops it in order", async () => {
  for (const signal of ["SIGTERM", "SIGHUP", "SIGINT"] as const) {
    const { child, file, url } = await serve(["ignore", "pipe", "pipe"]);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    // As systemd, timeout or a closed terminal send it: to the group, and passed on by the parent.
    process.kill(-child.pid!, signal);
    child.kill(signal);
    expect(await once(child, "exit"), signal).toEqual([0, null]);
    expect(existsSync(file), `${signal}: the address of the stopped server`).toBe(false);
  }
});

test("up tells a mistake on its command line before anything is started", async () => {
  const data = join(await temporaryDirectory(), "data");
  const child = start(["up", "--once", "--within", "soon", "--data", data], ["ignore", "ignore", "pipe"]);
  const [told, [code]] = await Promise.all([text(child.stderr!), once(child, "exit")]);
  expect(told).toContain('--within: "soon" is no length of time');
  expect(code).toBe(2);
  expect(existsSync(data)).toBe(false);
});
