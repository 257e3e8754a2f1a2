/**
 * A server process and a daemon process with an agent that a test releases: what is killed in
 * crash.test.ts and crash.slow.test.ts.
 */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createClients, enroll } from "@pinion/client";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { eventually, type PinionProcess, startPinion, temporaryDirectory } from "../support/processes.ts";
import { ownerToken } from "../support/server.ts";

/**
 * Long enough that a busy machine starts processes within the TTL, where nothing is to be reaped.
 */
export const patientTtlMs = 30_000;

export type Service = {
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
export async function startService(database: { url: string }, options: { ttlMs: number }): Promise<Service> {
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

/** What the windows of the device's watcher hold. */
export const outputs = async (service: Service) =>
  (await service.clients.runs.listWindows({ watcherId: "daily-checkin" })).windows.map(
    (window) => window.extractedData?.output,
  );
