/** A real server goes on after uncaught errors, and is reachable by an IPv6 literal. */
import { writeFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test, vi } from "vitest";
import { runCommand } from "../support/command.ts";
import { useDatabase } from "../support/database.ts";
import { startPinion, temporaryDirectory } from "../support/processes.ts";
import { ownerToken } from "../support/server.ts";

const database = useDatabase();
const throwing = fileURLToPath(new URL("../support/throwing.ts", import.meta.url));
const hasIpv6 = Object.values(networkInterfaces()).some((list) =>
  list?.some(({ address }) => address === "::1"),
);

test("what is thrown in a timer, and a rejection that nothing waits for, are counted and end no process", async () => {
  const token = await ownerToken(database.url);
  const server = startPinion(["serve", "--json", "--port", "0", "--data", await temporaryDirectory()], {
    DATABASE_URL: database.url,
    NODE_OPTIONS: `--import ${throwing}`,
    PINION_LOG_LEVEL: "silent",
  });
  const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
  const count = async (origin: string) => {
    const text = await (await fetch(`${url}/metrics`)).text();
    return Number(
      new RegExp(`^pinion_uncaught_errors_total\\{origin="${origin}"\\} (\\d+)$`, "m").exec(text)?.[1],
    );
  };
  server.child.kill("SIGUSR2");
  await vi.waitFor(async () => {
    expect(await count("process")).toBe(1);
    expect(await count("rejection")).toBe(1);
  }, 5_000);
  // The request itself is answered before its timer, or cut by the crash; the next request is
  // served.
  await fetch(`${url}/healthz`, { headers: { "x-throw": "1" } }).catch(() => {});
  await vi.waitFor(async () => expect((await count("callback")) + (await count("process"))).toBe(2), 5_000);
  const listed = await runCommand({ PINION_URL: url, PINION_TOKEN: token }, "devices", "list");
  expect(listed.code).toBe(0);
  expect(server.child.exitCode).toBeNull();
});

test.runIf(hasIpv6)("the command, the doctor and a daemon reach a server at [::1]", async () => {
  const token = await ownerToken(database.url);
  const directory = await temporaryDirectory();
  const server = startPinion(
    ["serve", "--json", "--host", "[::1]", "--port", "0", "--data", join(directory, "server")],
    { DATABASE_URL: database.url },
  );
  const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
  expect(url).toMatch(/^http:\/\/\[::1\]:\d+$/);
  const run = (...args: string[]) =>
    runCommand({ ...process.env, PINION_TOKEN: token, XDG_CONFIG_HOME: directory }, "--url", url, ...args);
  expect(await run("devices", "list")).toMatchObject({ code: 0 });
  const bare = await runCommand(
    { PINION_TOKEN: token },
    "--url",
    url.replace("http://", ""),
    "devices",
    "list",
  );
  expect(bare.code).toBe(0);
  expect((await run("doctor", "--data", directory)).out).toContain(`${url}`);
  const asked = JSON.parse((await run("devices", "join-code", "--json")).out);
  const stateDir = join(directory, "device");
  const code = JSON.stringify(asked).match(/[A-Z0-9]{4}(-[A-Z0-9]{4}){3}/)?.[0];
  const enrolled = await run(
    "device",
    "enroll",
    "--join-code",
    String(code),
    "--state-dir",
    stateDir,
    "--label",
    "six",
  );
  expect(enrolled).toMatchObject({ code: 0 });
  await writeFile(join(directory, "none.toml"), "");
  startPinion(["device", "run", "--state-dir", stateDir, "--config", join(directory, "none.toml")], {});
  await vi.waitFor(
    async () => expect((await run("devices", "list")).out).toMatch(/six +(online|connected)/),
    15_000,
  );
});
