/** `pinion up` with a device's configuration that a person breaks while it is in use. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, inject, test } from "vitest";
import { temporaryHome, untilPrinted } from "./home.ts";

const main = inject("pinionMain");
const { home, env, run } = temporaryHome();

afterAll(() => rmSync(home, { recursive: true, force: true }));

test("a configuration that became wrong takes nothing down: the one before it is in force, also for a daemon that died", async () => {
  const place = join(home, "misconfigured");
  const config = join(place, "device.toml");
  const its = spawn(process.execPath, [main, "up", "--no-run", "--data", place], { env, cwd: home });
  try {
    await untilPrinted(its, /What next/);
    writeFileSync(config, "[device]\nmax_concurrency = = 2\n");
    const { pid } = JSON.parse(readFileSync(join(place, "device", "daemon.lock"), "utf8")) as { pid: number };
    // `status` exits with 1 for a daemon that is no systemd service.
    const status = async () =>
      JSON.parse((await run({}, "device", "status", "--state-dir", join(place, "device"), "--json")).out);
    await expect
      .poll(async () => (await status()).config_problem, { timeout: 20_000, interval: 500 })
      .toContain(`${config}:2: `);
    process.kill(pid, "SIGKILL");
    await expect.poll(status, { timeout: 30_000, interval: 500 }).toMatchObject({
      pid: expect.not.toBeOneOf([pid, null]),
      connection: "serving",
      config_problem: expect.stringContaining(`${config}:2: `),
    });
    expect(its.exitCode).toBeNull();
  } finally {
    its.kill("SIGINT");
    await once(its, "close");
  }
  // Nor does a mistake keep the next start from coming up.
  const again = spawn(process.execPath, [main, "up", "--no-run", "--data", place], { env, cwd: home });
  const printed = await untilPrinted(again, /What next/);
  again.kill("SIGINT");
  await once(again, "close");
  expect(printed).toContain("device.toml is wrong, and the one before it stays in force");
  expect(printed).toContain(`${config}:2: `);
  expect(printed).toMatch(/✓ device/);
}, 180_000);
