/**
 * The secrets of a daemon that its programs can find: nothing in the environment or the command
 * line, and no token in a file.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findIdentity } from "@pinion/client";
import { expect, inject, onTestFinished, test } from "vitest";
import { isOpen, startsDaemon, withoutToken } from "../../../src/cli/device/conceal.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { startTestReplica } from "../../support/server.ts";

const database = useDatabase({ per: "file" });
const main = inject("pinionMain");

function makeHome(): string {
  const home = mkdtempSync(join(tmpdir(), "pinion-secrets-"));
  onTestFinished(() => rmSync(home, { recursive: true, force: true }));
  return home;
}

const script = (command: string) => `
[device]
default_executor = "test"
[executors.test]
command = ["sh", "-c", ${JSON.stringify(command)}]
env_add = ["MY_API_KEY"]
`;

/** Read by the loader and by libraries before the daemon's first line. */
const needed = { LD_LIBRARY_PATH: "/opt/of-node", OPENSSL_CONF: "/dev/null", UV_THREADPOOL_SIZE: "5" };

/** Enrols a device whose token is in a separate file, and starts its daemon as a process. */
async function startDaemon(config: string, tokenCommand: boolean) {
  const replica = await startTestReplica(database.url);
  const home = makeHome();
  const stateDir = join(home, "state");
  const { joinCode } = await replica.clients.fleet.createJoinCode({});
  const tokenFile = join(home, "token");
  const enrolled = await runCommand(
    { HOME: home },
    ...["--url", replica.url, "device", "enroll", "--join-code", joinCode, "--state-dir", stateDir],
    ...["--token-file", tokenFile],
  );
  expect(enrolled.err).toMatch(/its identity is in/);
  const identity = await findIdentity(stateDir);
  expect(identity?.token).toBe("");
  expect(statSync(tokenFile).mode & 0o777).toBe(0o600);
  const configFile = join(home, "device.toml");
  const command = tokenCommand ? `token_command = ["cat", ${JSON.stringify(tokenFile)}]\n` : "";
  writeFileSync(configFile, config.replace("[device]\n", `[device]\n${command}`));
  const child = spawn(
    process.execPath,
    [main, "--json", "device", "run", "--state-dir", stateDir, "--config", configFile],
    {
      env: {
        ...needed,
        PATH: process.env.PATH,
        HOME: home,
        MY_API_KEY: "sk-hush",
        PINION_TOKEN: "pin_pat_hush",
      },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  onTestFinished(async () => {
    child.kill("SIGTERM");
    await new Promise((done) => child.once("exit", done));
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const told = async (text: string) => {
    const deadline = performance.now() + 20_000;
    while (!said.includes(text)) {
      if (performance.now() > deadline) throw new Error(`no ${text} in: ${said}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  };
  await told('"connected"');
  return { replica, child, identity: identity!, tokenFile, told };
}

test.skipIf(process.platform !== "linux")(
  "the environment of a daemon, which its programs can read, holds no secrets; they get what they are allowed all the same",
  async () => {
    const before = readdirSync("/dev/shm");
    const { replica, identity, child } = await startDaemon(
      script("tr '\\0' '\\n' < /proc/$PPID/environ | cut -d= -f1; echo \"mine: $MY_API_KEY\""),
      true,
    );
    const environment = readFileSync(`/proc/${child.pid}/environ`, "utf8");
    expect(environment).not.toContain("hush");
    expect(environment.split("\0")).toEqual(
      expect.arrayContaining(Object.entries(needed).map(([name, value]) => `${name}=${value}`)),
    );
    const spec = { name: "look", prompt: "x", agentKind: "test", deviceId: identity.deviceId };
    const { watcher } = await replica.clients.watchers.createWatcher({ slug: "look", spec });
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    await expect
      .poll(async () => (await replica.clients.runs.getRun({ runId: run!.id })).run?.windowId, {
        timeout: 20_000,
      })
      .toBeTruthy();
    const { windows } = await replica.clients.runs.listWindows({ watcherId: watcher!.id });
    const { output } = windows[0]!.extractedData as { output: string };
    expect(output).toContain("PATH\n");
    expect(output).not.toMatch(/^(MY_API_KEY|PINION_TOKEN)$/m);
    expect(output).toContain("mine: sk-hush");
    // The file of the handed-over token is deleted. Databases of other test runs may come
    // meanwhile.
    expect(
      readdirSync("/dev/shm").filter((name) => /^pinion-(?!test-)/.test(name) && !before.includes(name)),
    ).toEqual([]);
  },
);

test("without the token's place a daemon says where it could be", async () => {
  const replica = await startTestReplica(database.url);
  const home = makeHome();
  const { joinCode } = await replica.clients.fleet.createJoinCode({});
  const stateDir = join(home, "state");
  const enrol = ["device", "enroll", "--join-code", joinCode, "--state-dir", stateDir, "--token-file", "-"];
  const { out } = await runCommand({ HOME: home }, "--url", replica.url, ...enrol);
  const [token] = /pin_dev_\S+/.exec(out) ?? [];
  expect(token).toBeTruthy();
  const run = (env: Record<string, string>) =>
    runCommand({ HOME: home, ...env }, "device", "run", "--state-dir", stateDir);
  expect(await run({})).toMatchObject({
    code: 6,
    err: expect.stringMatching(/token_command.*pinion-device-token/s),
  });
  writeFileSync(join(home, "pinion-device-token"), "nonsense\n");
  expect(await run({ CREDENTIALS_DIRECTORY: home })).toMatchObject({
    code: 4,
    err: expect.stringMatching(/credential pinion-device-token holds is no device's token/),
  });
  expect(existsSync(join(stateDir, "identity.json"))).toBe(true);
});

test("what is a daemon's command line, what is in it, and which variables may be seen", () => {
  expect(startsDaemon(["--url", "x", "device", "run"])).toBe(true);
  expect(startsDaemon(["worker", "--token", "t"])).toBe(true);
  expect(startsDaemon(["device", "enroll"])).toBe(false);
  expect(startsDaemon(["runs", "list"])).toBe(false);
  expect(withoutToken(["worker", "--token", "t", "--json"])).toEqual({
    args: ["worker", "--json"],
    token: "t",
  });
  expect(withoutToken(["worker", "--token=t"])).toEqual({ args: ["worker"], token: "t" });
  expect(isOpen("HTTPS_PROXY", "http://proxy:1")).toBe(true);
  expect(isOpen("https_proxy", "http://me:hush@proxy:1")).toBe(false);
  for (const name of ["PINION_TOKEN", "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL"]) {
    expect(isOpen(name, "x"), name).toBe(false);
  }
});
