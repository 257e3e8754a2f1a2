/** Processes that are killed in the middle of a run; later moments are in crash.slow.test.ts. */
import { expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../support/database.ts";
import { eventually, processesWith } from "../support/processes.ts";
import { outputs, patientTtlMs, startService } from "./crash-service.ts";

const database = useDatabase();

test("a daemon that is killed in the middle of a run: reaped by its broken stream, its agent swept, the next run runs", async () => {
  const service = await startService(database, { ttlMs: 3_000 });
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
  const service = await startService(database, { ttlMs: patientTtlMs });
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

function isAgent(pid: number, directory: string): boolean {
  return [...processesWith(`${directory}/grandchild`), ...processesWith(`${directory}/agent.sh`)].includes(
    pid,
  );
}
