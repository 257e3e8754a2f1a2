/**
 * The replica that stored a result is killed before the result is delivered: another replica sends
 * the message, under the same id. A hook's sender that lost the answer starts nothing twice.
 */
import { createHmac, randomUUID } from "node:crypto";
import { join } from "node:path";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { expect, test, vi } from "vitest";
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { BulkKind, BulkState, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { newKey } from "../../src/secrets.ts";
import { useDatabase } from "../support/database.ts";
import { connect, enrolDevice } from "../support/device.ts";
import { startPinion, temporaryDirectory } from "../support/processes.ts";
import { openReceiver } from "../support/receivers.ts";
import { ownerToken, startTestReplica } from "../support/server.ts";

const database = useDatabase();
const env = {
  PINION_SECRET_KEYS: newKey(),
  PINION_DESTINATION_NETWORKS: "127.0.0.0/8",
  PINION_HEARTBEAT_TTL_MS: "60000",
  PINION_SWEEP_INTERVAL_MS: "200",
};
const until = <T>(fn: () => T | Promise<T>) => vi.waitFor(fn, { timeout: 20_000, interval: 20 });

/** A replica in a process of its own. */
async function process() {
  const directory = await temporaryDirectory();
  const server = startPinion(["serve", "--json", "--port", "0", "--data", join(directory, "server")], {
    ...env,
    DATABASE_URL: database.url,
  });
  const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
  const clients = createClients({ url, token: await ownerToken(database.url) });
  return { server, url, clients };
}

test("kill -9 between the commit and the delivery: the message comes once more under its id, and the hook's repeat is the same run", async () => {
  const { server, url, clients } = await process();
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const receiver = await openReceiver();
  // The first try is never answered: its replica dies meanwhile.
  receiver.behave(() => {}, 200);
  await clients.destinations.createDestination({
    slug: "ops",
    spec: { name: "ops", kind: { case: "webhook", value: { url: receiver.url } } },
  });
  const notify = [{ to: "ops", when: NotifyWhen.ALWAYS }];
  const spec = { name: "Told", prompt: "look", deviceId: device.deviceId, notify };
  await clients.watchers.createWatcher({ slug: "told", spec });
  const { hook, secret } = await clients.hooks.createHook({
    spec: { watcherId: "told", kind: HookKind.GITHUB },
  });
  const body = '{"ref":"refs/heads/main"}';
  const headers = {
    "x-hub-signature-256": `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`,
    "x-github-delivery": randomUUID(),
    "x-github-event": "push",
  };
  const post = async (to: string) =>
    (await (await fetch(`${to}/hooks/${hook!.id}`, { method: "POST", body, headers })).json()) as {
      run_id: string;
    };
  const { run_id: runId } = await post(url);
  const assignment = await stream.next("assignment");
  expect(assignment.workId).toBe(runId);
  stream.accept(assignment);
  await stream.complete(assignment, "done");
  await until(() => expect(receiver.received).toHaveLength(1));
  await server.kill("SIGKILL");

  const other = await startTestReplica(database.url, env);
  // The sender never heard of the answer, and posts again.
  expect((await post(other.url)).run_id).toBe(runId);
  // The lease of the lost try runs out.
  await sql`update delivery set lease_until = now()`.execute(database.db);
  await until(() => expect(receiver.received).toHaveLength(2));
  const ids = receiver.received.map((one) => one.headers["webhook-id"]);
  expect(new Set(ids).size).toBe(1);
  await until(async () => {
    const { deliveries } = await other.clients.destinations.listDeliveries({ destinationId: "ops" });
    expect(deliveries).toMatchObject([{ runId, attempts: 2 }]);
  });
  const { runs } = await other.clients.runs.listRuns({ watcherId: "told" });
  expect(runs.map(({ id, status }) => [id, status])).toEqual([[runId, RunStatus.COMPLETED]]);
});

test("a bulk operation whose replica is killed in the middle goes on where it was, each run once", async () => {
  const { server, clients } = await process();
  const device = await enrolDevice(clients);
  const ids: string[] = [];
  for (let index = 0; index < 60; index++) {
    const { watcher } = await clients.watchers.createWatcher({
      spec: { name: `Waits ${index}`, prompt: "x", deviceId: device.deviceId },
    });
    ids.push((await clients.watchers.triggerWatcher({ watcherId: watcher!.id })).run!.id);
  }
  // A batch cannot be committed while one of its runs is held: the replica is in the middle of it.
  const held = await database.db.startTransaction().execute();
  await sql`select id from run where id = ${ids[30]!} for update`.execute(held);
  const { operation } = await clients.runs.startBulkOperation({
    kind: BulkKind.CANCEL,
    filter: { deviceId: device.deviceId },
  });
  await until(async () => {
    const { rows } = await sql<{ ended: number; waiting: number }>`
      select (select count(*)::int from run_finished where status = 'cancelled') as ended,
        (select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock') as waiting`.execute(
      database.db,
    );
    expect(rows[0]!.ended).toBeGreaterThan(0);
    expect(rows[0]!.waiting).toBeGreaterThan(0);
  });
  await server.kill("SIGKILL");
  await held.rollback().execute();
  const other = await startTestReplica(database.url, env);
  const ended = await until(async () => {
    const answer = await other.clients.runs.getBulkOperation({ operationId: operation!.id });
    expect(answer.operation!.state).toBe(BulkState.FINISHED);
    return answer.operation!;
  });
  expect(ended).toMatchObject({ matched: 60, done: 60, failed: 0, left: 0 });
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from event where kind = 'run.cancelled' and run_id = any(${ids}::uuid[])`.execute(
    database.db,
  );
  expect(rows[0]!.count).toBe(60);
});
