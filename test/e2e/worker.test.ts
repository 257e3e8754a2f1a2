/** `pinion worker` as real processes: killed, stopped, and started again. */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../support/database.ts";
import { eventually, type PinionProcess, startPinion, temporaryDirectory } from "../support/processes.ts";
import { startTestReplica } from "../support/server.ts";
import { fleetToken } from "../support/worker.ts";

const database = useDatabase();

/**
 * A replica and workers of one token, whose agent prints its worker's name at the start, and ends
 * when the test releases that worker's agents.
 */
async function startFleet() {
  const replica = await startTestReplica(database.url, {
    PINION_HEARTBEAT_INTERVAL_MS: "500",
    PINION_HEARTBEAT_TTL_MS: "3000",
    PINION_RETRY_BACKOFF_MS: "10",
  });
  const { clients, url } = replica;
  const directory = await temporaryDirectory();
  const token = await fleetToken(clients);
  const tokenFile = join(directory, "token");
  await writeFile(tokenFile, `${token.secret}\n`);
  const fileOf = (name: string, what: string) => join(directory, name, what);
  return {
    clients,
    url,
    token,
    fileOf,
    async startWorker(name: string): Promise<PinionProcess> {
      const home = join(directory, name);
      await mkdir(home, { recursive: true });
      await writeFile(
        join(home, "agent.sh"),
        `cat > /dev/null
touch ${home}/begun-$PINION_RUN_ID
while [ ! -e ${home}/go ]; do sleep 0.05; done
echo "by ${name}"
`,
      );
      await writeFile(
        join(home, "device.toml"),
        `[device]\ndefault_executor = "agent"\n[executors]\nagent = { command = ["sh", "${home}/agent.sh"], stdin = "prompt" }\n`,
      );
      const worker = startPinion([
        ...["worker", "--json", "--url", url, "--token-file", tokenFile, "--label", name],
        ...["--state-dir", join(home, "state"), "--config", join(home, "device.toml")],
        ...["--backoff-max", "500ms", "--stop-grace", "10ms"],
      ]);
      await worker.line(/"connected"/);
      return worker;
    },
    release: (name: string) => writeFile(fileOf(name, "go"), ""),
    async trigger(maxAttempts = 1): Promise<string> {
      const { watcher } = await clients.watchers.createWatcher({
        slug: `fleet-${randomUUID()}`,
        spec: { name: "Fleet's", prompt: "p", maxAttempts },
      });
      const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
      return run!.id;
    },
    begun: (name: string, runId: string) =>
      eventually(() => existsSync(fileOf(name, `begun-${runId}`)) || undefined, `${name} to begin`),
    ended: (runId: string) =>
      eventually(async () => {
        const { run } = await clients.runs.getRun({ runId });
        return run!.finishedAt ? run : undefined;
      }, "the run to end"),
    outputs: async (runId: string) =>
      (await clients.runs.listWindows({ runId })).windows.map((window) => window.extractedData?.output),
  };
}

test("a worker that is killed in the middle of a run: reaped, and its run goes on at another worker, stored once", async () => {
  const fleet = await startFleet();
  const first = await fleet.startWorker("first");
  const runId = await fleet.trigger(2);
  await fleet.begun("first", runId);
  await first.kill("SIGKILL");
  await fleet.startWorker("second");
  await fleet.begun("second", runId);
  // The first worker's agent outlived the worker; the worker comes back, and learns that the run
  // was given to another worker.
  await fleet.release("first");
  await fleet.startWorker("first");
  await fleet.release("second");
  expect(await fleet.ended(runId)).toMatchObject({
    status: RunStatus.COMPLETED,
    attempt: 2,
    pastAttempts: [{ attempt: 1, reason: expect.stringMatching(/stream broke/) }],
  });
  expect(await fleet.outputs(runId)).toEqual(["by second\n"]);
  const { devices } = await fleet.clients.fleet.listDevices({ isWorker: true });
  expect(devices.map(({ label }) => label)).toEqual(["first", "second"]);
});

test("a worker that is stopped takes nothing new, reports what it ended, and is the same worker when it is back", async () => {
  const fleet = await startFleet();
  const worker = await fleet.startWorker("only");
  const runId = await fleet.trigger();
  await fleet.begun("only", runId);
  await worker.kill("SIGTERM");
  expect(worker.child.exitCode).toBe(0);
  expect(await fleet.ended(runId)).toMatchObject({ status: RunStatus.FAILED, reason: "daemon stopped" });
  const waiting = await fleet.trigger();
  const { summary } = await fleet.clients.runs.explainRun({ runId: waiting });
  expect(summary).toMatch(/no fleet worker of this org is connected\. The last one, only,/);
  await fleet.release("only");
  await fleet.startWorker("only");
  expect(await fleet.ended(waiting)).toMatchObject({ status: RunStatus.COMPLETED });
  expect((await fleet.clients.fleet.listDevices({ isWorker: true })).devices).toHaveLength(1);
});

test("a worker whose token is revoked ends and says so, and a token that is no service's is turned down", async () => {
  const fleet = await startFleet();
  const worker = await fleet.startWorker("only");
  const ended = new Promise<number | null>((resolve) => worker.child.on("exit", resolve));
  await fleet.clients.tokens.revokeToken({ tokenId: fleet.token.id });
  expect(await ended).toBe(4);
  const wrong = startPinion(["worker", "--url", fleet.url], { PINION_TOKEN: "pin_pat_x" });
  await new Promise((resolve) => wrong.child.on("exit", resolve));
  expect(wrong.child.exitCode).toBe(4);
});
