/** The commands of docs/operators.md, unchanged, with the buf of this checkout. */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { newId, newToken } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice, type Identity } from "../../../support/device.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const root = resolve(import.meta.dirname, "../../../..");
const bin = join(root, "node_modules/.bin");
const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

let device: Identity;
let runId: string;
let environment: Record<string, string>;

beforeAll(async () => {
  const { clients, url, token } = replicas.here;
  device = await enrolDevice(clients, "by-hand");
  runId = (await startWork(clients, device)).id;
  environment = {
    PINION_URL: url,
    PINION_TOKEN: token,
    PINION_RUN: runId,
    PINION_DEVICE_TOKEN: device.token,
    PINION_INSTALL_ID: device.installId,
  };
});

type Result = { exit: number | null; stdout: string; stderr: string };

/**
 * Runs a command like a reader of the page; `until` interrupts the command once the output matches.
 */
function run(script: string, options: { cwd?: string; until?: (stdout: string) => boolean } = {}) {
  return new Promise<Result>((resolve, reject) => {
    const child = spawn("bash", ["-euo", "pipefail", "-c", script], {
      cwd: options.cwd ?? root,
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}`, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    const result: Result = { exit: null, stdout: "", stderr: "" };
    child.stdout.on("data", (chunk) => {
      result.stdout += chunk;
      if (options.until?.(result.stdout)) process.kill(-child.pid!, "SIGINT");
    });
    child.stderr.on("data", (chunk) => {
      result.stderr += chunk;
    });
    child.on("error", reject);
    child.on("close", (exit) => resolve({ ...result, exit }));
  });
}

/** The commands of the page, each under the preceding sentence. */
function commandsOf(page: string): { title: string; rpc: string; script: string }[] {
  const text = readFileSync(join(root, page), "utf8");
  return [...text.matchAll(/([^\n]*)\n\n```sh\n(.*?)```/gs)].map(([, before, script]) => {
    const rpc = /pinion\.v1\.(\w+\/\w+)/.exec(script!)?.[1] ?? "";
    return {
      rpc,
      script: script!,
      title: before!.startsWith("`") || !before ? rpc : before!.replace(/:$/, ""),
    };
  });
}

/** Consecutive JSON documents, as printed by buf. */
function documents(text: string): Record<string, unknown>[] {
  return text
    .split(/^(?=\{)/m)
    .filter((part) => part.trim() !== "")
    .map((part) => JSON.parse(part));
}

const commands = commandsOf("docs/operators.md");
const isStream = ({ rpc }: { rpc: string }) => /Watch(Run|Events)|Connect/.test(rpc);
const scriptOf = (rpc: string) => commands.find((command) => command.rpc === rpc)!.script;

test("the page has a command for every way in", () => {
  const text = commands.map((command) => command.script).join();
  for (const part of [
    ...["--protocol grpc ", "--protocol grpcweb", "--schema proto", "--http2-prior-knowledge", "curl -sS"],
    ...["EventService/WatchEvents", "RunService/WatchRun", "DeviceService/Connect"],
  ]) {
    expect(text).toContain(part);
  }
});

test.each(commands.filter((command) => !isStream(command)))("$title — $rpc", async ({ rpc, script }) => {
  const { exit, stdout, stderr } = await run(script);
  expect(stderr).toBe("");
  expect(exit).toBe(0);
  if (script.includes("/readyz")) expect(stdout).toMatch(/^{"ready":true,/);
  else if (script.includes("--list-services")) expect(stdout).toContain("pinion.v1.DeviceService\n");
  else if (script.includes("Health/Check")) expect(JSON.parse(stdout)).toEqual({ status: "SERVING" });
  else if (script.includes("--list-methods")) expect(stdout).toContain("pinion.v1.RunService/ListRuns\n");
  else expect(Object.keys(JSON.parse(stdout)).length > 0 || script.includes("statuses")).toBe(true);
  if (rpc === "RunService/ListRuns" && !script.includes("statuses")) {
    expect(JSON.parse(stdout).runs).toContainEqual(expect.objectContaining({ id: runId }));
  }
});

test("events are shown as they happen, until Ctrl-C", async () => {
  let isAsked = false;
  const { stdout } = await run(scriptOf("EventService/WatchEvents"), {
    until(stdout) {
      // The past is here; now something happens.
      if (!isAsked && stdout.includes("device.enrolled")) {
        isAsked = true;
        void replicas.here.clients.watchers.pauseWatcher({ watcherId: "daily-checkin" });
      }
      return stdout.includes("watcher.paused");
    },
  });
  expect(stdout).toContain('"actor"');
});

test("a run is watched with its output until it ends", async () => {
  const stream = await connect(replicas.here.url, device);
  const assignment = await takeOn(stream);
  expect(assignment.workId).toBe(runId);
  let isBegun = false;
  const { exit, stdout, stderr } = await run(scriptOf("RunService/WatchRun"), {
    until(stdout) {
      if (isBegun || !stdout.includes('"run"')) return false;
      isBegun = true;
      const { attemptToken } = assignment;
      const data = Buffer.from("by hand");
      stream.send({ case: "output", value: { workId: runId, attemptToken, sequence: 1n, stream: 1, data } });
      void stream.complete(assignment);
      return false;
    },
  });
  expect(stderr).toBe("");
  expect(exit).toBe(0);
  const updates = documents(stdout);
  expect(updates[0]).toMatchObject({ run: { id: runId } });
  expect(updates).toContainEqual({
    output: expect.objectContaining({ data: Buffer.from("by hand").toString("base64") }),
  });
  expect(updates.at(-1)).toMatchObject({ run: { status: "RUN_STATUS_COMPLETED" } });
});

test("an ended run is watched over HTTP/1.1 and by gRPC as well", async () => {
  const stream = await connect(replicas.here.url, await enrolDevice(replicas.here.clients, "ended"));
  const { deviceId } = stream.welcome;
  const { id } = await startWork(replicas.here.clients, { ...device, deviceId });
  await stream.complete(await takeOn(stream));
  const others = commands.filter(({ rpc }) => rpc === "RunService/WatchRun").slice(1);
  expect(others).toHaveLength(2);
  for (const { script } of others) {
    const { exit, stdout, stderr } = await run(
      `export PINION_RUN=${id}; ${script.replace("buf curl", "buf curl -v")}`,
    );
    expect(exit, stderr).toBe(0);
    expect(stderr).toMatch(script.includes("--schema") ? /HTTP\/1\.1/ : /HTTP\/2/);
    expect(documents(stdout).at(-1)).toMatchObject({ run: { status: "RUN_STATUS_COMPLETED" } });
  }
});

test("a device's stream is spoken by hand: hello and heartbeat are answered, and its end is clean", async () => {
  const { exit, stdout, stderr } = await run(scriptOf("DeviceService/Connect"));
  expect(stderr).toBe("");
  expect(exit).toBe(0);
  const answers = documents(stdout);
  expect(answers[0]).toMatchObject({ welcome: { deviceId: device.deviceId, timers: { ttl: "60s" } } });
  expect(answers).toContainEqual({ heartbeatAck: expect.objectContaining({ sequence: "1" }) });
});

test("with a schema from a checkout the call goes over HTTP/1.1, with reflection over HTTP/2", async () => {
  const call = '"$PINION_URL/pinion.v1.RunService/ListRuns" -H "Authorization: Bearer $PINION_TOKEN"';
  expect((await run(`buf curl -v --schema proto ${call}`)).stderr).toMatch(/HTTP\/1\.1/);
  // That directory contains none of our files.
  const reflected = await run(`buf curl -v ${call}`, { cwd: tmpdir() });
  expect(reflected.exit).toBe(0);
  expect(reflected.stderr).toMatch(/HTTP\/2/);
});

const list = '"$PINION_URL/pinion.v1.RunService/ListRuns"';
const get = '"$PINION_URL/pinion.v1.RunService/GetRun" -H "Authorization: Bearer $PINION_TOKEN"';
test.each([
  ["no token", list, 16, "unauthenticated", "a token is needed: authorization: Bearer pin_…"],
  [
    "an unknown token",
    `${list} -H "Authorization: Bearer ${newToken("pat")}"`,
    16,
    "unauthenticated",
    "unknown",
  ],
  ["another's run", `${get} -d '{"run_id": "${newId()}"}'`, 5, "not_found", "there is no run"],
  ["a wrong id", `${get} -d '{"run_id": "seven"}'`, 3, "invalid_argument", "run_id: must be a valid UUID"],
])("%s is answered with an error that can be read", async (_, args, code, name, message) => {
  for (const protocol of ["connect", "grpc", "grpcweb"]) {
    const { exit, stdout, stderr } = await run(`buf curl --protocol ${protocol} ${args}`);
    expect(exit, stderr).toBe(code * 8);
    expect(stdout).toBe("");
    expect(JSON.parse(stderr)).toMatchObject({ code: name, message: expect.stringContaining(message) });
  }
});
