/** The contents of a replica's and a daemon's log through a whole day of work. */
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClients, enroll, findIdentity } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { replicaConfig } from "../../../../src/config.ts";
import { startReplica } from "../../../../src/replica/replica.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { useDatabase } from "../../../support/database.ts";
import { startFaultProxy } from "../../../support/fault-proxy.ts";
import { eventually, startPinion, temporaryDirectory } from "../../../support/processes.ts";
import { ownerToken } from "../../../support/server.ts";
import { startTelegram } from "../../../support/telegram.ts";
import { untilStatus } from "../../../support/work.ts";

const database = useDatabase();

test("a log tells requests, runs, devices and orgs, and no token, code, secret or password", async () => {
  const secrets: Record<string, string> = {
    "the key of secrets": randomBytes(32).toString("base64"),
    "a platform's secret": `7001:${randomBytes(12).toString("hex")}`,
    "the token of metrics": randomBytes(12).toString("hex"),
    "the owner's token": await ownerToken(database.url),
    "the database's password": "a-password-of-no-use",
  };
  const url = new URL(database.url);
  const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port || 5432) });
  onTestFinished(() => proxy.close());
  const direct = new URL(database.url);
  direct.port = String(proxy.port);
  direct.hostname = "127.0.0.1";
  // Trusted connections need no password, so any value will do.
  if (direct.password) secrets["the database's password"] = direct.password;
  else direct.password = secrets["the database's password"]!;
  const lines: string[] = [];
  const telegram = await startTelegram({ isOpen: true });
  onTestFinished(() => telegram[Symbol.asyncDispose]());
  const replica = await startReplica(
    replicaConfig({
      DATABASE_URL: direct.href,
      PINION_PORT: "0",
      PINION_SHUTDOWN_MS: "4000",
      PINION_SECRET_KEYS: `k1:${secrets["the key of secrets"]}`,
      PINION_METRICS_TOKEN: secrets["the token of metrics"],
      PINION_DESTINATION_NETWORKS: "127.0.0.1",
    }),
    {
      log: createLogger({
        name: "test",
        level: "trace",
        destination: { write: (line: string) => void lines.push(line) },
      }),
    },
  );
  onTestFinished(() => replica.stop());
  const clients = createClients({ url: replica.url, token: secrets["the owner's token"]! });

  const made = await clients.tokens.createToken({ kind: TokenKind.SVC, label: "ci", scopes: ["read"] });
  secrets["a service's token"] = made.secret;
  secrets["its successor"] = (await clients.tokens.rotateToken({ tokenId: made.token!.id })).secret;
  await clients.agents.upsertPlatform({
    stableId: "chat",
    agentId: "pinion-default",
    kind: "telegram",
    config: { chat_id: "7", api_url: telegram.url },
    secrets: { bot_token: { kind: { case: "value", value: secrets["a platform's secret"]! } } },
  });
  const { joinCode } = await clients.fleet.createJoinCode({});
  secrets["a join code"] = joinCode;
  const stateDir = await temporaryDirectory();
  const { deviceId } = await enroll({ url: replica.url, joinCode, label: "logged", stateDir });
  secrets["a device's token"] = (await findIdentity(stateDir))!.token;
  await expect(
    enroll({ url: replica.url, joinCode, label: "again", stateDir: await temporaryDirectory() }),
  ).rejects.toThrow();
  await expect(
    createClients({ url: replica.url, token: `${made.secret}0` }).runs.listRuns({}),
  ).rejects.toThrow();

  const config = join(stateDir, "device.toml");
  writeFileSync(
    config,
    '[device]\ndefault_executor = "echo"\n[executors.echo]\ncommand = ["cat"]\nstdin = "prompt"\n',
  );
  const daemon = startPinion(["device", "run", "--state-dir", stateDir, "--config", config, "--json"], {
    PINION_URL: replica.url,
    PINION_LOG_LEVEL: "trace",
  });
  let said = "";
  daemon.child.stdout!.on("data", (data) => {
    said += data;
  });
  daemon.child.stderr!.on("data", (data) => {
    said += data;
  });
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Logged", prompt: "go", deviceId },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await untilStatus(clients, { workId: run!.id }, RunStatus.COMPLETED);
  await daemon.line(/"acknowledged"/);
  await clients.runs.getRun({ runId: run!.id }, { headers: { "x-request-id": "asked-by-a-test" } });
  await clients.tokens.revokeToken({ tokenId: made.token!.id });
  proxy.set({ onConnect: "reset" });
  proxy.reset();
  await expect(clients.runs.listRuns({})).rejects.toThrow();
  await eventually(
    () => lines.some((line) => line.includes("the database is away")) || undefined,
    "the outage in the log",
  );
  proxy.set({ onConnect: "accept" });
  await eventually(
    () => fetch(`${replica.url}/readyz`).then((answer) => answer.ok || undefined),
    "the database again",
  );
  await replica.stop();
  await daemon.kill("SIGTERM");

  const calls = lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === "call");
  expect(calls.find((line) => line.requestId === "asked-by-a-test")).toMatchObject({
    rpc: "pinion.v1.RunService/GetRun",
    code: "ok",
    runId: run!.id,
    orgId: "local",
    replicaId: replica.replicaId,
  });
  for (const line of calls) expect(line.requestId).toMatch(/^[\w.:-]+$/);
  const sessions = lines.map((line) => JSON.parse(line)).filter(({ msg }) => /device session/.test(msg));
  expect(sessions[0]).toMatchObject({ orgId: "local", deviceId });
  expect(said).toContain(run!.id);
  const text = lines.join("") + said;
  for (const [what, secret] of Object.entries(secrets)) {
    expect(text.includes(secret), `the log holds ${what}`).toBe(false);
  }
}, 60_000);

test("a request id that is no id is not repeated; every answer has one", async () => {
  const { startTestReplica } = await import("../../../support/server.ts");
  const replica = await startTestReplica(database.url);
  const ask = (headers: Record<string, string>) =>
    fetch(`${replica.url}/pinion.v1.RunService/ListRuns`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: "{}",
    });
  const authorization = `Bearer ${replica.token}`;
  const good = await ask({ authorization, "x-request-id": "abc-1" });
  expect(good.headers.get("x-request-id")).toBe("abc-1");
  const odd = await ask({ authorization, "x-request-id": 'x" injected="1' });
  expect(odd.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  const refused = await ask({ "x-request-id": "abc-2" });
  expect(refused.status).toBe(401);
  expect(refused.headers.get("x-request-id")).toBe("abc-2");
});
