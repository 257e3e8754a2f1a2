import { existsSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createClients, enroll } from "@pinion/client";
import { expect, test } from "vitest";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../support/database.ts";
import {
  eventually,
  type PinionProcess,
  processesWith,
  startPinion,
  temporaryDirectory,
} from "../support/processes.ts";
import { ownerToken } from "../support/server.ts";

const database = useDatabase();

/**
 * Long enough that a busy machine starts processes within the TTL, where nothing is to be reaped.
 */
const patientTtlMs = 30_000;

type Service = {
  directory: string;
  clients: ReturnType<typeof createClients>;
  server: PinionProcess;
  startServer(): Promise<PinionProcess>;
  startDaemon(): Promise<PinionProcess>;
  /** Lets the agents end. */
  release(): Promise<void>;
  /** Triggers the device's watcher and waits until the agent runs. */
  triggerAndWait(): Promise<Run>;
  runOnce(runId: string): Promise<Run>;
};

/**
 * A server process, an enrolled device, and an agent that reports its start, starts a grandchild,
 * and prints its result when the test releases the agent.
 */
async function startService(options: { ttlMs: number }): Promise<Service> {
  const directory = await temporaryDirectory();
  const token = await ownerToken(database.url);
  let port = "0";
  const startServer = async () => {
    const server = startPinion(["serve", "--json", "--port", port, "--data", join(directory, "server")], {
      PINION_HEARTBEAT_INTERVAL_MS: "500",
      PINION_HEARTBEAT_TTL_MS: String(options.ttlMs),
      PINION_REAP_INTERVAL_MS: "200",
      DATABASE_URL: database.url,
    });
    const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
    port = new URL(url).port;
    return server;
  };
  const server = await startServer();
  const url = `http://127.0.0.1:${port}`;
  const clients = createClients({ url, token });
  const { joinCode } = await clients.fleet.createJoinCode({});
  const stateDir = join(directory, "device");
  await enroll({ url, joinCode, label: "crash-test", stateDir });

  const agent = join(directory, "agent.sh");
  const go = join(directory, "go");
  const begun = join(directory, "begun");
  await writeFile(
    agent,
    // The grandchild must be swept as well; its command line contains the directory's name.
    `cat > /dev/null
sh -c 'while true; do sleep 1; done' ${directory}/grandchild &
child=$!
touch ${begun}-$PINION_RUN_ID
while [ ! -e ${go} ]; do sleep 0.05; done
kill $child
echo "the result of $PINION_RUN_ID"
`,
  );
  const config = join(directory, "device.toml");
  await writeFile(
    config,
    `[device]\ndefault_executor = "agent"\n[executors]\nagent = { command = ["sh", "${agent}"], stdin = "prompt" }\n`,
  );
  const runOnce = async (runId: string) => (await clients.runs.getRun({ runId })).run!;
  return {
    directory,
    clients,
    server,
    startServer,
    runOnce,
    async startDaemon() {
      const daemon = startPinion([
        "device",
        "run",
        "--json",
        "--state-dir",
        stateDir,
        "--config",
        config,
        "--backoff-max",
        "500ms",
      ]);
      await daemon.line(/"connected"|"welcome"|"serving"/);
      return daemon;
    },
    release: () => writeFile(go, ""),
    async triggerAndWait() {
      const { run } = await clients.watchers.triggerWatcher({ watcherId: "daily-checkin" });
      await eventually(() => existsSync(`${begun}-${run!.id}`) || undefined, "the agent to begin");
      await eventually(
        async () => (await runOnce(run!.id)).status === RunStatus.RUNNING || undefined,
        "the run to be running",
      );
      return run!;
    },
  };
}

const outputs = async (service: Service) =>
  (await service.clients.runs.listWindows({ watcherId: "daily-checkin" })).windows.map(
    (window) => window.extractedData?.output,
  );

test("a daemon that is killed in the middle of a run: reaped by its broken stream, its agent swept, the next run runs", async () => {
  const service = await startService({ ttlMs: 3_000 });
  const daemon = await service.startDaemon();
  const { id } = await service.triggerAndWait();
  expect(processesWith(`${service.directory}/grandchild`)).not.toEqual([]);
  const killedAt = performance.now();
  await daemon.kill("SIGKILL");

  const reaped = await eventually(async () => {
    const run = await service.runOnce(id);
    return run.finishedAt ? run : undefined;
  }, "the run to be reaped");
  expect(reaped).toMatchObject({ status: RunStatus.TIMEOUT, reason: expect.stringMatching(/stream broke/) });
  // The TTL of 3 s counts from the last heartbeat; the rest is the reaper's interval and this
  // machine's delay.
  expect(performance.now() - killedAt).toBeLessThan(12_000);
  // The agent outlived its daemon, because the agent has its own process group.
  expect(processesWith(`${service.directory}/grandchild`)).not.toEqual([]);

  await service.startDaemon();
  await eventually(
    () => processesWith(service.directory).every((pid) => !isAgent(pid, service.directory)) || undefined,
    "the agent to be swept",
  );

  await service.release();
  const next = await service.triggerAndWait().catch(() => undefined);
  const { runs } = await service.clients.runs.listRuns({ watcherId: "daily-checkin" });
  const after = next ?? runs[0]!;
  expect(after.id).not.toBe(id);
  await eventually(
    async () => (await service.runOnce(after.id)).status === RunStatus.COMPLETED || undefined,
    "the next run to complete",
  );
  expect(await outputs(service)).toEqual([`the result of ${after.id}\n`]);
});

test("a server that is killed in the middle of a run: the run completes after its restart, stored once", async () => {
  const service = await startService({ ttlMs: patientTtlMs });
  const daemon = await service.startDaemon();
  const { id } = await service.triggerAndWait();
  await service.server.kill("SIGKILL");
  await service.release();
  await daemon.line(/"finished"/);
  await service.startServer();
  await eventually(
    async () => (await service.runOnce(id)).status === RunStatus.COMPLETED || undefined,
    "the run to complete",
  );
  expect(await outputs(service)).toEqual([`the result of ${id}\n`]);
});

test("a daemon that is killed after its program ended and before the acknowledgement: delivered after the restart, stored once", async () => {
  const service = await startService({ ttlMs: patientTtlMs });
  const daemon = await service.startDaemon();
  const { id } = await service.triggerAndWait();
  await service.server.kill("SIGKILL");
  await service.release();
  await eventually(() => outboxOf(service).length === 1 || undefined, "the result to be in the outbox");
  await daemon.kill("SIGKILL");
  await service.startServer();
  expect((await service.runOnce(id)).status).toBe(RunStatus.RUNNING);
  await service.startDaemon();
  await eventually(
    async () => (await service.runOnce(id)).status === RunStatus.COMPLETED || undefined,
    "the run to complete",
  );
  await eventually(() => outboxOf(service).length === 0 || undefined, "the outbox to be emptied");
  expect(await outputs(service)).toEqual([`the result of ${id}\n`]);
});

test("a completion that is stored while its device is killed is not stored again", async () => {
  const service = await startService({ ttlMs: patientTtlMs });
  const daemon = await service.startDaemon();
  const { id } = await service.triggerAndWait();
  // The server is stopped, so the completion reaches its socket and no acknowledgement comes back.
  service.server.child.kill("SIGSTOP");
  await service.release();
  await eventually(() => outboxOf(service).length === 1 || undefined, "the result to be in the outbox");
  await daemon.kill("SIGKILL");
  service.server.child.kill("SIGCONT");
  await service.startDaemon();
  await eventually(() => outboxOf(service).length === 0 || undefined, "the outbox to be emptied");
  expect((await service.runOnce(id)).status).toBe(RunStatus.COMPLETED);
  expect(await outputs(service)).toEqual([`the result of ${id}\n`]);
});

/** The results held by the device; a result that is still being written is not held yet. */
function outboxOf(service: Service): string[] {
  const path = join(service.directory, "device", "outbox");
  if (!existsSync(path)) return [];
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith(".tmp"))
    .map((entry) => entry.name);
}

function isAgent(pid: number, directory: string): boolean {
  return [...processesWith(`${directory}/grandchild`), ...processesWith(`${directory}/agent.sh`)].includes(
    pid,
  );
}
