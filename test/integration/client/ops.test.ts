import { readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { status } from "@grpc/grpc-js";
import { expect, onTestFinished, test } from "vitest";
import { BadRequestSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { Os } from "#gen/pinion/v1/device_pb.js";
import { RunService, RunStatus } from "#gen/pinion/v1/run_pb.js";
import {
  createClients,
  enroll,
  ensureInstallId,
  findIdentity,
  isNotFound,
  PinionError,
  waitForRun,
} from "../../../clients/ts/src/index.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { makeStateDir, startPeer } from "./harness.ts";

const workId = "0190b6a0-0000-7000-8000-00000000000a";

/** A RunService on a real port, HTTP/2 without TLS. */
async function serveRuns(
  service: Partial<ServiceImpl<typeof RunService>>,
): Promise<{ url: string; port: number }> {
  const server = createServer(
    connectNodeAdapter({ routes: (router) => void router.service(RunService, service) }),
  );
  const sessions = new Set<{ destroy(): void }>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, port };
}

test.each(["connect", "grpc", "grpc-web"] as const)(
  "a call by %s carries the token and its errors can be branched on",
  async (protocol) => {
    const tokens: (string | null)[] = [];
    const { url } = await serveRuns({
      getRun: (_request, { requestHeader }) => {
        tokens.push(requestHeader.get("authorization"));
        throw new ConnectError("run_id is not a UUID", Code.InvalidArgument, undefined, [
          { desc: BadRequestSchema, value: { fieldViolations: [{ field: "run_id", description: "no" }] } },
          { desc: RetryInfoSchema, value: { retryDelay: { seconds: 2n } } },
        ]);
      },
      listRuns: () => {
        throw new ConnectError("nothing here", Code.NotFound);
      },
    });
    const clients = createClients({ url, token: "pin_pat_x", protocol });
    onTestFinished(() => clients.close());
    const error = await clients.runs.getRun({ runId: workId }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(PinionError);
    expect(error).toMatchObject({ reason: "invalid_argument", field: "run_id", retryAfterMs: 2_000 });
    expect(tokens).toEqual(["Bearer pin_pat_x"]);
    await expect(clients.runs.listRuns({})).rejects.toSatisfy(isNotFound);
  },
);

test("an error in the middle of a stream is a PinionError as well", async () => {
  const { url } = await serveRuns({
    async *watchRun() {
      yield { update: { case: "run", value: { id: workId, status: RunStatus.RUNNING } } };
      throw new ConnectError("gone", Code.NotFound);
    },
  });
  const clients = createClients({ url, token: "t" });
  onTestFinished(() => clients.close());
  await expect(waitForRun(clients, workId)).rejects.toMatchObject({ reason: "not_found" });
});

test("waiting for a run goes on over broken streams until the run has ended", async () => {
  let streams = 0;
  const { port } = await serveRuns({
    async *watchRun(_request, { signal }) {
      streams += 1;
      if (streams === 3) {
        yield { update: { case: "output", value: { sequence: 1n, data: Buffer.from("hi") } } };
        yield { update: { case: "run", value: { id: workId, status: RunStatus.COMPLETED } } };
        return;
      }
      yield { update: { case: "run", value: { id: workId, status: RunStatus.RUNNING } } };
      if (streams === 1) return;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  });
  const proxy = await startFaultProxy({ port });
  onTestFinished(() => proxy.close());
  const clients = createClients({ url: proxy.url, token: "t" });
  onTestFinished(() => clients.close());
  const outputs: string[] = [];
  let seen = 0;
  const run = await waitForRun(clients, workId, {
    onOutput: ({ data }) => outputs.push(Buffer.from(data).toString()),
    onRun: () => {
      seen += 1;
      if (seen === 2) proxy.reset();
    },
  });
  expect(run.status).toBe(RunStatus.COMPLETED);
  expect(streams).toBe(3);
  expect(outputs).toEqual(["hi"]);
});

test("waiting for a run ends when the caller has enough", async () => {
  const { url } = await serveRuns({
    async *watchRun(_request, { signal }) {
      yield { update: { case: "run", value: { id: workId, status: RunStatus.RUNNING } } };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  });
  const clients = createClients({ url, token: "t" });
  onTestFinished(() => clients.close());
  const controller = new AbortController();
  const waiting = waitForRun(clients, workId, {
    signal: controller.signal,
    onRun: () => controller.abort(new Error("enough")),
  });
  await expect(waiting).rejects.toThrow("enough");
});

test("a server that never answers is given up after the deadline, and the next call gets a fresh connection", async () => {
  const { port } = await serveRuns({ getRun: () => ({ run: { id: workId } }) });
  const proxy = await startFaultProxy({ port });
  onTestFinished(() => proxy.close());
  proxy.set({ onConnect: "hang" });
  const clients = createClients({ url: proxy.url, token: "t", answerDeadlineMs: 150 });
  onTestFinished(() => clients.close());
  await expect(clients.runs.getRun({ runId: workId })).rejects.toMatchObject({ reason: "deadline_exceeded" });
  proxy.heal();
  expect((await clients.runs.getRun({ runId: workId })).run?.id).toBe(workId);
});

test("enrolment stores an identity that only its owner can read, and keeps the installation's id", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const installId = await ensureInstallId(stateDir);
  const identity = await enroll({
    url: peer.url,
    joinCode: "join-1",
    label: "laptop",
    stateDir,
    os: Os.LINUX,
  });
  expect(identity).toEqual({
    sameLabelCount: 0,
    installId,
    deviceId: "device-1",
    orgId: "local",
    token: "pin_dev_new",
    url: peer.url,
  });
  expect(peer.enrollments).toMatchObject([{ joinCode: "join-1", installId, label: "laptop", os: Os.LINUX }]);
  const path = join(stateDir, "identity.json");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(JSON.parse(readFileSync(path, "utf8"))).toEqual({
    install_id: installId,
    device_id: "device-1",
    org_id: "local",
    token: "pin_dev_new",
    url: peer.url,
  });
  const { sameLabelCount: _, ...stored } = identity;
  expect(await findIdentity(stateDir)).toEqual(stored);
  // As an editor of Windows writes it.
  writeFileSync(path, `\uFEFF${readFileSync(path, "utf8").replaceAll("\n", "\r\n")}`);
  expect(await findIdentity(stateDir)).toEqual(stored);
  await enroll({ url: peer.url, joinCode: "join-2", label: "laptop", stateDir });
  expect(peer.enrollments[1]?.installId).toBe(installId);
});

test("a join code that is used up is refused by name, and nothing is stored", async () => {
  const peer = await startPeer();
  peer.enrollRefusal = { code: status.UNAUTHENTICATED, details: "the join code is used" };
  const stateDir = makeStateDir();
  const attempt = enroll({ url: peer.url, joinCode: "old", label: "laptop", stateDir });
  await expect(attempt).rejects.toMatchObject({ reason: "unauthenticated" });
  expect(await findIdentity(stateDir)).toBeUndefined();
});
