/** The probes of load balancers, and the moments at which they report NOT_SERVING. */
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { expect, onTestFinished, test, vi } from "vitest";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { startFaultProxy } from "../../../support/fault-proxy.ts";
import { startTestReplica } from "../../../support/server.ts";

const database = useDatabase();

const readyz = async ({ url }: { url: string }) => {
  const answer = await fetch(`${url}/readyz`);
  return { status: answer.status, ...((await answer.json()) as object) };
};
const healthOf = ({ url }: { url: string }) => createClient(Health, createGrpcTransport({ baseUrl: url }));

test("/readyz says that all is well, check by check, and /healthz that the process answers", async () => {
  const replica = await startTestReplica(database.url);
  expect(await readyz(replica)).toEqual({
    status: 200,
    ready: true,
    checks: {
      serving: { ok: true, message: "takes work" },
      database: { ok: true, message: expect.stringMatching(/^answered in \d+ ms$/) },
      bus: { ok: true, message: "listens" },
    },
  });
  expect((await fetch(`${replica.url}/readyz?from=probe`)).status).toBe(200);
  expect(await (await fetch(`${replica.url}/healthz`)).text()).toBe("ok\n");
  expect(await healthOf(replica).check({})).toMatchObject({ status: Status.SERVING });
});

test("without a database /readyz and grpc.health.v1 are red and say so, and green again afterwards", async () => {
  const url = new URL(database.url);
  const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port || 5432) });
  onTestFinished(() => proxy.close());
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  const replica = await startTestReplica(url.href);
  const watched: Status[] = [];
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const watching = (async () => {
    for await (const { status } of healthOf(replica).watch({}, { signal: stop.signal })) watched.push(status);
  })();
  watching.catch(() => {});
  await vi.waitFor(() => expect(watched).toEqual([Status.SERVING]), { timeout: 10_000 });
  proxy.set({ onConnect: "reset" });
  proxy.reset();
  // Without calls of /readyz, health watchers get the change all the same.
  await vi.waitFor(() => expect(watched).toEqual([Status.SERVING, Status.NOT_SERVING]), { timeout: 10_000 });
  expect(await readyz(replica)).toMatchObject({
    status: 503,
    ready: false,
    checks: {
      serving: { ok: true },
      database: { ok: false, message: "the database does not answer" },
      bus: { ok: false },
    },
  });
  expect(await healthOf(replica).check({ service: "pinion.v1.RunService" })).toMatchObject({
    status: Status.NOT_SERVING,
  });
  expect((await fetch(`${replica.url}/healthz`)).status).toBe(200);
  proxy.set({ onConnect: "accept" });
  await vi.waitFor(() => expect(watched).toEqual([Status.SERVING, Status.NOT_SERVING, Status.SERVING]), {
    timeout: 10_000,
  });
  expect(await readyz(replica)).toMatchObject({ status: 200, ready: true });
});

test("a replica that drains is red while its streams leave", async () => {
  const replica = await startTestReplica(database.url, { PINION_SHUTDOWN_MS: "6000" });
  const stream = await connect(replica.url, await enrolDevice(replica.clients));
  // An open connection, as load balancers keep them: the draining replica accepts no new
  // connection.
  const health = healthOf(replica);
  await health.check({});
  const stopped = replica.stop();
  await stream.next("drain");
  expect(await health.check({})).toMatchObject({ status: Status.NOT_SERVING });
  stream.end();
  await stopped;
});

test("a port of their own answers probes and metrics, and nothing else", async () => {
  const probePort = 20_000 + Math.floor(Math.random() * 10_000);
  await startTestReplica(database.url, { PINION_PROBE_PORT: String(probePort) });
  const ask = (path: string) => fetch(`http://127.0.0.1:${probePort}${path}`);
  expect(await (await ask("/healthz")).text()).toBe("ok\n");
  expect((await ask("/readyz")).status).toBe(200);
  expect(await (await ask("/metrics")).text()).toContain("pinion_connections{");
  expect((await ask("/")).status).toBe(404);
  expect((await ask("/pinion.v1.FleetService/ListDevices")).status).toBe(404);
});
