/** The doctor, with each checked part broken in turn. */
import { chmodSync, mkdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { enroll } from "@pinion/client";
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { checkExpiry } from "../../../src/cli/doctor/tls.ts";
import * as tokens from "../../../src/store/people/credentials/tokens.ts";
import { newToken } from "../../../src/values/ids.ts";
import { hasOpenssl, makeCertificate } from "../../support/certificate.ts";
import { runCommand } from "../../support/command.ts";
import { createTestDatabase, useDatabase } from "../../support/database.ts";
import { startFaultProxy } from "../../support/fault-proxy.ts";
import { temporaryDirectory } from "../../support/processes.ts";
import { startTestReplica } from "../../support/server.ts";
import { useReplicas } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

type Check = { name: string; verdict: string; found: string; advice?: string };

async function doctor(env: Record<string, string>, ...args: string[]) {
  const home = await temporaryDirectory();
  const ended = await runCommand(
    { HOME: home, PATH: process.env.PATH, PINION_DATA: join(home, "data"), ...env },
    "--json",
    "doctor",
    ...args,
  );
  expect(ended.err).toBe("");
  const { healthy, checks } = JSON.parse(ended.out) as { healthy: boolean; checks: Check[] };
  expect(ended.code).toBe(healthy ? 0 : 1);
  // Every failed check gives advice.
  for (const check of checks) {
    if (check.verdict === "bad" || check.verdict === "doubtful")
      expect(check.advice, check.name).toBeTruthy();
  }
  return { healthy, checks, of: (name: string) => checks.find((check) => check.name === name) };
}

/** The URL of a closed port. */
async function closedUrl(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

const client = () => ({ PINION_URL: replicas.here.url, PINION_TOKEN: replicas.here.token });

test("all is well: server, readiness, bus, clock, token with its scopes, database and notifications", async () => {
  const { checks, of } = await doctor(client(), "--database-url", database.url);
  expect(of("token")?.found).toMatch(/^pat token from PINION_TOKEN, scopes .*admin.*, does not expire$/);
  for (const name of [
    ...["server", "ready", "bus", "clock", "token"],
    ...["version", "schema", "database clock", "connections", "notifications"],
  ]) {
    expect(of(name)).toMatchObject({ verdict: "good" });
  }
  // The cluster of the tests does not survive a power cut, and need not.
  expect(checks.filter(({ verdict }) => verdict === "bad").map(({ name }) => name)).toEqual(["durability"]);
});

test("people read a line for each, with marks and advice", async () => {
  const home = await temporaryDirectory();
  const { out, code } = await runCommand({ HOME: home, PINION_URL: await closedUrl() }, "doctor");
  expect(code).toBe(1);
  expect(out).toMatch(/^✗ server +no Pinion at http:\/\/127\.0\.0\.1:\d+ \(ECONNREFUSED\)$/m);
  expect(out).toMatch(/^ +→ start one with `pinion up`/m);
});

test("a server that is not there, and one that is something else", async () => {
  expect((await doctor({ PINION_URL: await closedUrl() })).of("server")).toMatchObject({ verdict: "bad" });
  const other = createServer((_, response) => response.writeHead(404).end());
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void other.close());
  const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
  expect((await doctor({ PINION_URL: url })).of("server")).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("HTTP 404"),
  });
});

/** A server that answers the probes with given answers. */
async function probes(readyz: object, date?: string): Promise<string> {
  const server = createServer((request, response) => {
    if (date) response.sendDate = false;
    if (date) response.setHeader("date", date);
    response.writeHead(200).end(request.url === "/readyz" ? JSON.stringify(readyz) : "ok");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const ok = { ok: true, message: "fine" };

test("a clock that is off is said with how much", async () => {
  const date = new Date(Date.now() + 90_000).toUTCString();
  const url = await probes({ ready: true, checks: { serving: ok, database: ok, bus: ok } }, date);
  expect((await doctor({ PINION_URL: url })).of("clock")).toMatchObject({
    verdict: "doubtful",
    found: expect.stringMatching(/^this machine is 1 m (29|30) s behind the server$/),
  });
});

test("a server without its database is red and names the check; a bus that is down is doubtful", async () => {
  const url = new URL(database.url);
  const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port || 5432) });
  onTestFinished(() => proxy.close());
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  const replica = await startTestReplica(url.href);
  proxy.set({ onConnect: "reset" });
  proxy.reset();
  const { of } = await doctor({ PINION_URL: replica.url, PINION_TOKEN: replica.token });
  expect(of("ready")).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("database: the database does not answer"),
  });
  const bus = { ok: false, message: "notifications are missed" };
  const half = await probes({ ready: true, checks: { serving: ok, database: ok, bus } });
  expect((await doctor({ PINION_URL: half })).of("bus")).toMatchObject({ verdict: "doubtful" });
});

test("no token, half a token, one that nobody knows, one that ends soon, one that may little", async () => {
  const { url, token, clients } = replicas.here;
  const check = async (given: string) => (await doctor({ PINION_URL: url, PINION_TOKEN: given })).of("token");
  expect(await check("")).toMatchObject({ verdict: "bad", found: "none" });
  expect(await check(token.slice(0, -3))).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("cut off"),
  });
  expect(await check(newToken("pat"))).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("unknown, revoked or expired"),
  });
  const make = async (scopes: string[], seconds?: number) =>
    (
      await clients.tokens.createToken({
        kind: TokenKind.SVC,
        label: "x",
        scopes,
        ...(seconds ? { expiresIn: { seconds: BigInt(seconds) } } : {}),
      })
    ).secret;
  expect(await check(await make(["read"], 3 * 86_400))).toMatchObject({
    verdict: "doubtful",
    found: expect.stringMatching(/scopes read, expires in 2 d 23 h$/),
  });
  expect(await check(await make(["write"], 30 * 86_400))).toMatchObject({ verdict: "good" });
  const fleet = await tokens.issue(database.db, {
    orgId: "local",
    kind: "svc",
    label: "fleet",
    scopes: ["fleet:run"],
  });
  expect(await check(fleet.secret)).toMatchObject({
    verdict: "doubtful",
    found: expect.stringContaining('without the scope "read"'),
  });
});

test("a database that is not there, not migrated, or of a newer version", async () => {
  const away = await doctor(client(), "--database-url", "postgres://nobody:secret-word@127.0.0.1:9/none");
  expect(away.of("database")).toMatchObject({ verdict: "bad" });
  expect(JSON.stringify(away.checks)).not.toContain("secret-word");
  const empty = await createTestDatabase({ isEmpty: true });
  onTestFinished(() => empty.drop());
  expect((await doctor(client(), "--database-url", empty.url)).of("schema")).toMatchObject({
    verdict: "bad",
    found: expect.stringMatching(/migrations are missing/),
    advice: expect.stringContaining("pinion migrate"),
  });
  const newer = await createTestDatabase();
  onTestFinished(() => newer.drop());
  await sql`insert into kysely_migration (name, timestamp) values ('9999_future', 'now')`.execute(newer.db);
  expect((await doctor(client(), "--database-url", newer.url)).of("schema")).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("9999_future"),
  });
});

test("a DATABASE_DIRECT_URL that leads to another database hears nothing", async () => {
  const other = await createTestDatabase();
  onTestFinished(() => other.drop());
  const env = { ...client(), DATABASE_URL: database.url, DATABASE_DIRECT_URL: other.url };
  expect((await doctor(env)).of("notifications")).toMatchObject({
    verdict: "bad",
    advice: expect.stringContaining("DATABASE_DIRECT_URL"),
  });
});

/** A device's directory, enrolled at the replica. */
async function enrolled() {
  const stateDir = await temporaryDirectory();
  const { clients, url } = replicas.here;
  const { joinCode } = await clients.fleet.createJoinCode({});
  const identity = await enroll({ url, joinCode, label: "doctored", stateDir });
  mkdirSync(join(stateDir, "outbox"), { recursive: true });
  return { stateDir, identity };
}

test("a device that is well, whose programs are there; its daemon does not run, which it says", async () => {
  const { stateDir, identity } = await enrolled();
  const config = join(stateDir, "device.toml");
  writeFileSync(config, '[device]\ndefault_executor = "a"\n[executors.a]\ncommand = ["sh", "-c", "true"]\n');
  const { of, healthy } = await doctor(client(), "--state-dir", stateDir, "--config", config);
  expect(of("device")).toMatchObject({ verdict: "good" });
  expect(of("disk")).toMatchObject({
    verdict: "good",
    found: expect.stringMatching(/iB are free for results$/),
  });
  expect(of("device token")).toMatchObject({
    verdict: "good",
    found: expect.stringContaining(identity.deviceId),
  });
  expect(of("outbox")).toMatchObject({ verdict: "good" });
  expect(of("daemon")).toMatchObject({ verdict: "doubtful", found: "does not run" });
  expect(of("executor a")).toMatchObject({ verdict: "good", found: expect.stringMatching(/\/sh$/) });
  expect(healthy).toBe(true);
});

test("a program that is not in PATH, a directory that is not there, a file that cannot be read", async () => {
  const { stateDir } = await enrolled();
  const config = join(stateDir, "device.toml");
  writeFileSync(
    config,
    [
      '[device]\ndefault_executor = "a"',
      '[executors.a]\ncommand = ["no-such-program"]',
      `[executors.b]\ncommand = ["sh"]\ncwd = "${stateDir}/gone"`,
      `[executors.c]\ncommand = ["${stateDir}/device.toml"]`,
    ].join("\n"),
  );
  const { of } = await doctor(client(), "--state-dir", stateDir, "--config", config);
  expect(of("executor a")).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("no-such-program is not there in PATH"),
  });
  expect(of("executor b")).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("does not exist"),
  });
  expect(of("executor c")).toMatchObject({ verdict: "bad" });
  writeFileSync(config, "[device]\nmax_concurrency = = 2\n");
  const broken = await doctor(client(), "--state-dir", stateDir, "--config", config);
  expect(broken.of("device.toml")).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining(`${config}:2: `),
  });
});

test("an outbox that cannot be written is red", async () => {
  const { stateDir } = await enrolled();
  // Not by file mode, which root ignores: a file replaces the directory.
  const outbox = join(stateDir, "outbox");
  rmSync(outbox, { recursive: true });
  writeFileSync(outbox, "in the way");
  expect((await doctor(client(), "--state-dir", stateDir)).of("disk")).toMatchObject({
    verdict: "bad",
    found: expect.stringMatching(/cannot be written \(ENOTDIR\)/),
  });
});

test("results that wait long are doubtful, and ones that were set aside red", async () => {
  const { stateDir } = await enrolled();
  const waiting = join(stateDir, "outbox", "x.completion");
  writeFileSync(waiting, "x");
  utimesSync(waiting, new Date(), new Date(Date.now() - 600_000));
  mkdirSync(join(stateDir, "outbox", "bad"), { recursive: true });
  writeFileSync(join(stateDir, "outbox", "bad", "y"), "y");
  chmodSync(stateDir, 0o755);
  const { of } = await doctor(client(), "--state-dir", stateDir);
  expect(of("outbox")).toMatchObject({
    verdict: "doubtful",
    found: expect.stringMatching(/the oldest for 10 m$/),
  });
  expect(of("set aside")).toMatchObject({ verdict: "bad" });
  expect(of("device")).toMatchObject({ verdict: "doubtful", advice: `chmod 700 ${stateDir}` });
});

test("a device that was deleted is told to enrol again", async () => {
  const { stateDir, identity } = await enrolled();
  await replicas.here.clients.fleet.deleteDevice({ deviceId: identity.deviceId });
  expect((await doctor(client(), "--state-dir", stateDir)).of("device token")).toMatchObject({
    verdict: "bad",
    advice: expect.stringContaining("pinion device enroll"),
  });
});

test("the server's side: settings, port, TLS, keys", async () => {
  const good = await doctor({ ...client(), DATABASE_URL: database.url, PINION_PORT: "0" }, "--server");
  expect(good.of("settings")).toMatchObject({ verdict: "good" });
  expect(good.of("port")).toMatchObject({ verdict: "good" });
  expect(good.of("tls")).toMatchObject({ verdict: "good" });
  expect(good.of("secret keys")).toMatchObject({ verdict: "doubtful" });
  const wrong = await doctor({ ...client(), PINION_PORT: "many" }, "--server");
  expect(wrong.of("settings")).toMatchObject({
    verdict: "bad",
    found: expect.stringContaining("PINION_PORT"),
  });

  const { port } = new URL(replicas.here.url);
  const taken = await doctor({ ...client(), PINION_PORT: port }, "--server");
  expect(taken.of("port")).toMatchObject({
    verdict: "good",
    found: expect.stringContaining("looks like a Pinion"),
  });
  const other = createServer((_, response) => response.writeHead(404).end());
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void other.close());
  const { port: theirs } = other.address() as AddressInfo;
  const open = await doctor({ ...client(), PINION_PORT: String(theirs), PINION_HOST: "0.0.0.0" }, "--server");
  expect(open.of("port")).toMatchObject({ verdict: "bad", found: expect.stringContaining("is taken") });
  expect(open.of("tls")).toMatchObject({
    verdict: "doubtful",
    advice: expect.stringContaining("PINION_TLS"),
  });
});

const withOpenssl = hasOpenssl ? test : test.skip;

withOpenssl(
  "a certificate that ends soon, has ended, or belongs to another key (needs openssl)",
  async () => {
    const [soon, long] = [makeCertificate(2), makeCertificate(100)];
    const served = (certFile: string, keyFile: string) =>
      doctor(
        { ...client(), PINION_PORT: "0", PINION_TLS_CERT_FILE: certFile, PINION_TLS_KEY_FILE: keyFile },
        "--server",
      );
    expect((await served(long.certFile, long.keyFile)).of("certificate")).toMatchObject({
      verdict: "good",
      found: expect.stringMatching(/^good for (99|100) d.*DNS:localhost/),
    });
    expect((await served(soon.certFile, soon.keyFile)).of("certificate")).toMatchObject({
      verdict: "doubtful",
    });
    expect((await served(long.certFile, soon.keyFile)).of("certificate")).toMatchObject({
      verdict: "bad",
      found: expect.stringContaining("is not the key of"),
    });
    expect((await served("/no/such/file", soon.keyFile)).of("certificate")).toMatchObject({ verdict: "bad" });
    const ended = { validTo: new Date(Date.now() - 86_400_000).toUTCString(), subject: "CN=x" };
    expect(checkExpiry(ended as unknown as Parameters<typeof checkExpiry>[0])).toMatchObject({
      verdict: "bad",
      found: "has expired 1 d ago",
    });
  },
);

withOpenssl(
  "a server whose certificate is not trusted says what to do about it (needs openssl)",
  async () => {
    const { certFile, keyFile } = makeCertificate(2);
    const replica = await startTestReplica(database.url, {
      PINION_TLS_CERT_FILE: certFile,
      PINION_TLS_KEY_FILE: keyFile,
    });
    const { of } = await doctor({ PINION_URL: replica.url, PINION_TOKEN: replica.token });
    expect(of("server")).toMatchObject({
      verdict: "bad",
      found: expect.stringContaining("does not know"),
      advice: expect.stringContaining("NODE_EXTRA_CA_CERTS"),
    });
  },
);

test("programs are looked for where the running daemon looks, not where this shell does", async () => {
  const stateDir = await temporaryDirectory();
  chmodSync(stateDir, 0o700);
  const config = join(stateDir, "device.toml");
  writeFileSync(
    config,
    '[device]\ndefault_executor = "a"\n[executors.a]\ncommand = ["sh"]\nenv_add = ["SOME_API_KEY", "COLORFGBG"]\n',
  );
  const look = () => doctor(client(), "--state-dir", stateDir, "--config", config);
  expect((await look()).of("executor a")).toMatchObject({ verdict: "good" });
  // The status and the lock of a daemon that runs: this process stands for the daemon.
  const environment = { path: "/nowhere", home: stateDir, workingDir: "/", names: ["PATH"] };
  writeFileSync(join(stateDir, "daemon.lock"), JSON.stringify({ pid: process.pid }));
  writeFileSync(
    join(stateDir, "status.json"),
    JSON.stringify({ pid: process.pid, connection: "serving", environment }),
  );
  const { checks, of } = await look();
  expect(of("environment")?.found).toBe(`that of the daemon (process ${process.pid}): PATH=/nowhere`);
  const found = checks.filter(({ name }) => name === "executor a");
  expect(found).toEqual([
    expect.objectContaining({
      verdict: "bad",
      found: expect.stringContaining("not there in the daemon's PATH"),
    }),
    expect.objectContaining({ verdict: "doubtful", found: expect.stringContaining("no SOME_API_KEY") }),
  ]);
});
