/** Processes that are killed between the end of a program and the acknowledgement of its result. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../support/database.ts";
import { eventually } from "../support/processes.ts";
import { outputs, patientTtlMs, type Service, startService } from "./crash-service.ts";

const database = useDatabase();

test("a daemon that is killed after its program ended and before the acknowledgement: delivered after the restart, stored once", async () => {
  const service = await startService(database, { ttlMs: patientTtlMs });
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
  const service = await startService(database, { ttlMs: patientTtlMs });
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
