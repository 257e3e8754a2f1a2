/**
 * NATS with authentication: TLS with certificates on both sides, tokens, passwords, permissions. A
 * real server each time.
 */
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { checkBus } from "../../../../src/cli/doctor/bus.ts";
import { natsConfig } from "../../../../src/config.ts";
import type { Bus, BusMessage } from "../../../../src/server/cluster/bus.ts";
import { openNatsBus } from "../../../../src/server/cluster/bus-nats.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { missing } from "../../../support/bus.ts";
import { type Authority, hasOpenssl, makeAuthority } from "../../../support/certificate.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { type Nats, startNats } from "../../../support/nats.ts";
import { noticeSkipped } from "../../../support/notice.ts";
import { eventually } from "../../../support/processes.ts";
import { startTestReplica } from "../../../support/server.ts";
import { startWork, takeOn } from "../../../support/work.ts";

type Env = Record<string, string>;

/** Longer than any test, so that every message arrives over the bus or from a resync. */
const noSweep = { PINION_SWEEP_INTERVAL_MS: "3600000" };

function missingHere(): string | undefined {
  if (hasOpenssl) return missing("nats");
  return noticeSkipped("NATS over TLS", "there is no openssl here (apt-get install openssl)");
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pinion-nats-tls-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function startServer(args: string[]): Promise<Nats> {
  const nats = await startNats(args);
  onTestFinished(() => nats.kill());
  return nats;
}

/** A bus as in a replica, with its log and its received messages. */
async function openBus(replicaId: string, env: Env) {
  const lines: string[] = [];
  const heard: BusMessage[] = [];
  let bus: Bus | undefined;
  const opening = openNatsBus({
    nats: natsConfig({ PINION_BUS: "nats", ...env })!,
    replicaId,
    handlers: { onMessage: (message) => heard.push(message), onResync: () => {} },
    log: createLogger({ level: "warn", name: "test", destination: { write: (line) => lines.push(line) } }),
    heartbeatMs: 300,
  }).then((opened) => {
    bus = opened;
    return opened;
  });
  onTestFinished(async () => {
    await (await opening).close();
  });
  return {
    heard,
    lines,
    opening,
    isUp: () => bus?.isUp() ?? false,
    /** Resolves with a warning whose error matches. */
    warned: (pattern: RegExp) =>
      eventually(() => messagesOf(lines).find((message) => pattern.test(message)), `a warning ${pattern}`),
  };
}

const messagesOf = (lines: readonly string[]) =>
  lines.map((line) => (JSON.parse(line) as { err?: { message?: string } }).err?.message ?? "");

/** The output of `pinion doctor` about a bus that refuses the credentials. */
async function doctorOf(env: Env): Promise<string> {
  const [found] = await checkBus({ PINION_BUS: "nats", ...env });
  return found!.verdict === "bad" ? `${found!.found}; ${found!.advice}` : found!.verdict;
}

/**
 * The doctor and the log of a replica name the same trouble, and the replica keeps trying. Resolves
 * with both outputs.
 */
async function expectTrouble(env: Env, pattern: RegExp): Promise<string> {
  const said = await doctorOf(env);
  expect(said).toMatch(pattern);
  const bus = await openBus("replica", env);
  await bus.warned(pattern);
  const before = bus.lines.length;
  await eventually(() => bus.lines.length > before + 1 || undefined, "two more tries");
  expect(bus.isUp()).toBe(false);
  return [said, ...bus.lines].join("\n");
}

describe.skipIf(missingHere())("NATS over TLS that verifies its clients", () => {
  const database = useDatabase({ per: "file" });
  let authority: Authority;
  let stranger: Authority;
  let client: { certFile: string; keyFile: string };
  let tlsArgs: string[];
  beforeAll(() => {
    authority = makeAuthority(folder);
    stranger = makeAuthority(folder);
    client = authority.sign("client");
    tlsArgs = argsFor(authority.sign("server", "DNS:localhost", "IP:127.0.0.1"));
  });

  const argsFor = ({ certFile, keyFile }: { certFile: string; keyFile: string }) => [
    ...["--tlsverify", "--tlscert", certFile, "--tlskey", keyFile, "--tlscacert", authority.certFile],
  ];

  const tlsEnv = ({ port }: Nats, host = "localhost"): Env => ({
    PINION_NATS_URL: `tls://${host}:${port}`,
    PINION_NATS_CA_FILE: authority.certFile,
    PINION_NATS_CERT_FILE: client.certFile,
    PINION_NATS_KEY_FILE: client.keyFile,
  });

  test("with the authority and a certificate that it signed, runs reach the replica that holds the device", async () => {
    const env = { PINION_BUS: "nats", ...tlsEnv(await startServer(tlsArgs)), ...noSweep };
    expect(await doctorOf(env)).toBe("good");
    const called = await startTestReplica(database.url, env);
    const holder = await startTestReplica(database.url, env);
    const device = await enrolDevice(called.clients);
    const stream = await connect(holder.url, device);
    const { id } = await startWork(called.clients, device);
    expect((await stream.next("assignment")).workId).toBe(id);
  });

  test("a server that is another authority's is not trusted, and the setting that says whom to trust is named", async () => {
    const nats = await startServer(tlsArgs);
    await expectTrouble(
      { ...tlsEnv(nats), PINION_NATS_CA_FILE: stranger.certFile },
      /its certificate is of no authority in .*authority.pem; put the authority .* into PINION_NATS_CA_FILE/,
    );
    await expectTrouble({ PINION_NATS_URL: `tls://localhost:${nats.port}` }, /set PINION_NATS_CA_FILE to/);
    // The server requires TLS, whatever the URL says.
    await expectTrouble({ PINION_NATS_URL: nats.url }, /set PINION_NATS_CA_FILE to/);
  });

  test("a replica without a certificate is told to have one, and one of a stranger's is not let in", async () => {
    const nats = await startServer(tlsArgs);
    await expectTrouble(
      { PINION_NATS_URL: `tls://localhost:${nats.port}`, PINION_NATS_CA_FILE: authority.certFile },
      /set PINION_NATS_CERT_FILE and PINION_NATS_KEY_FILE/,
    );
    const { certFile, keyFile } = stranger.sign("client");
    await expectTrouble(
      { ...tlsEnv(nats), PINION_NATS_CERT_FILE: certFile, PINION_NATS_KEY_FILE: keyFile },
      /the certificate in PINION_NATS_CERT_FILE has to be of an authority that it trusts/,
    );
  });

  test("files that cannot be read or do not belong together are named by their settings", async () => {
    const nats = await startServer(tlsArgs);
    const nothing = join(folder, "nothing.pem");
    for (const setting of ["PINION_NATS_CA_FILE", "PINION_NATS_CERT_FILE", "PINION_NATS_KEY_FILE"]) {
      await expect(doctorOf({ ...tlsEnv(nats), [setting]: nothing })).resolves.toMatch(
        new RegExp(`${setting} cannot be read .*no such file`),
      );
    }
    const another = authority.sign("another");
    await expect(doctorOf({ ...tlsEnv(nats), PINION_NATS_KEY_FILE: another.keyFile })).resolves.toMatch(
      /PINION_NATS_KEY_FILE is not the key of the certificate in PINION_NATS_CERT_FILE/,
    );
  });

  test("a server is asked for the name or the address that it is called by, and for no other", async () => {
    const byAddress = await startServer(argsFor(authority.sign("address", "IP:127.0.0.1")));
    expect(await doctorOf(tlsEnv(byAddress, "127.0.0.1"))).toBe("good");
    await expectTrouble(
      tlsEnv(byAddress, "localhost"),
      /for another name .*name the servers in PINION_NATS_URL/,
    );
    const byName = await startServer(argsFor(authority.sign("name", "DNS:localhost")));
    expect(await doctorOf(tlsEnv(byName, "localhost"))).toBe("good");
    await expectTrouble(tlsEnv(byName, "127.0.0.1"), /for another name/);
  });

  test("a server without TLS is not spoken to where TLS is asked for", async () => {
    const plain = await startServer(["--user", "pinion", "--pass", "secret"]);
    await expectTrouble(
      { PINION_NATS_URL: `tls://pinion:secret@localhost:${plain.port}` },
      /it speaks no TLS; turn TLS on there/,
    );
  });

  test("a replica whose certificate is put right joins without a restart, and finds what it has missed", async () => {
    const nats = await startServer(tlsArgs);
    const renewed = { certFile: join(folder, "renewed.pem"), keyFile: join(folder, "renewed.key") };
    const copy = (from: typeof renewed) =>
      Promise.all([cp(from.certFile, renewed.certFile), cp(from.keyFile, renewed.keyFile)]);
    await copy(stranger.sign("expired"));
    const good = { PINION_BUS: "nats", ...tlsEnv(nats), ...noSweep };
    const late = { PINION_NATS_CERT_FILE: renewed.certFile, PINION_NATS_KEY_FILE: renewed.keyFile };
    const [called, holder] = await Promise.all([
      startTestReplica(database.url, good),
      startTestReplica(database.url, { ...good, ...late }),
    ]);
    const device = await enrolDevice(called.clients);
    const stream = await connect(holder.url, device);
    const { id } = await startWork(called.clients, device);
    expect(stream.waiting("assignment")).toEqual([]);
    await copy(client);
    expect((await takeOn(stream)).workId).toBe(id);
  });
});

describe.skipIf(missing("nats"))("NATS that asks for credentials", () => {
  async function expectMessages(env: Env): Promise<void> {
    const [one, two] = [await openBus("one", env), await openBus("two", env)];
    await Promise.all([one.opening, two.opening]);
    const message: BusMessage = { kind: "events", orgId: "local" };
    (await one.opening).send("two", message);
    await eventually(() => two.heard.length > 0 || undefined, "the message");
    expect(two.heard).toEqual([message]);
  }

  test("with its token messages pass; another one, or none, is refused and named", async () => {
    const { url } = await startServer(["--auth", "a-token"]);
    await expectMessages({ PINION_NATS_URL: url, PINION_NATS_TOKEN: "a-token" });
    await expectTrouble(
      { PINION_NATS_URL: url, PINION_NATS_TOKEN: "another" },
      /it refuses the token in PINION_NATS_TOKEN \(Authorization Violation\)/i,
    );
    await expectTrouble(
      { PINION_NATS_URL: url },
      /it lets nobody in without credentials .*set PINION_NATS_TOKEN/,
    );
  });

  test("with its user and password messages pass; a wrong one is refused, and stands in no text", async () => {
    const { port } = await startServer(["--user", "pinion", "--pass", "p@ss/word"]);
    const urlOf = (password: string) => `nats://pinion:${encodeURIComponent(password)}@127.0.0.1:${port}`;
    await expectMessages({ PINION_NATS_URL: urlOf("p@ss/word") });
    const said = await expectTrouble(
      { PINION_NATS_URL: urlOf("wr0ng-one") },
      /it refuses the user "pinion" with the password in PINION_NATS_URL/,
    );
    expect(said).not.toContain("wr0ng-one");
  });

  test.each([
    ["publish", "subscribe"],
    ["subscribe", "publish"],
  ])("a user that may not %s is told which subjects it needs", async (denied, allowed) => {
    const file = join(folder, `no-${denied}.conf`);
    await writeFile(
      file,
      `authorization { users = [ { user: "pinion", password: "secret",
         permissions: { ${allowed}: ["pinion.>"], ${denied}: { deny: [">"] } } } ] }`,
    );
    const { port } = await startServer(["-c", file]);
    const bus = await openBus("one", { PINION_NATS_URL: `nats://pinion:secret@127.0.0.1:${port}` });
    (await bus.opening).send("two", { kind: "events", orgId: "local" });
    await bus.warned(/its permissions do not suffice .*let Pinion's user publish and subscribe pinion\.>/);
  });
});
