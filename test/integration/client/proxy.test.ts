/**
 * All traffic of a device and a command goes through a real proxy, or the reason for a direct
 * connection is printed.
 */
import { createServer, request } from "node:https";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { DrainReason, Os } from "#gen/pinion/v1/device_pb.js";
import {
  connectDevice,
  createClients,
  enroll,
  httpAgentFor,
  type ProxySetting,
  proxyErrorOf,
} from "../../../clients/ts/src/index.ts";
import { hasOpenssl, makeCertificate } from "../../support/certificate.ts";
import { type ConnectProxy, startConnectProxy, startSocksProxy } from "../../support/connect-proxy.ts";
import { useDatabase } from "../../support/database.ts";
import { startTestReplica } from "../../support/server.ts";
import { Events, makeStateDir, startDevice, startPeer } from "./harness.ts";
import { quickTiming } from "./timing.ts";

const database = useDatabase();

beforeEach(() => {
  for (const name of ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]) {
    vi.stubEnv(name, undefined);
    vi.stubEnv(name.toUpperCase(), undefined);
  }
});
afterEach(() => vi.unstubAllEnvs());

/** A name that only the proxy can look up. */
const host = "pinion.example.test";
const named = (proxy: ConnectProxy, userinfo = "", scheme = "http"): ProxySetting => ({
  url: `${scheme}://${userinfo}${proxy.address}`,
  setting: "--proxy",
});

/**
 * Enrols with the proxy settings of the environment, runs one assignment, and calls the API with a
 * token.
 */
async function useEverything(options: {
  url: string;
  token: string;
  tls?: { ca: Buffer };
  proxy?: ProxySetting;
}): Promise<void> {
  const { url, tls = {}, proxy } = options;
  const common = { url, tls, ...(proxy ? { proxy } : {}) };
  const clients = createClients({ ...common, token: options.token });
  onTestFinished(() => clients.close());
  const { joinCode } = await clients.fleet.createJoinCode({});
  const stateDir = makeStateDir();
  const identity = await enroll({ ...common, joinCode, label: "behind a proxy", stateDir });
  const events = new Events();
  const device = connectDevice({
    ...common,
    token: identity.token,
    installId: identity.installId,
    os: Os.LINUX,
    agentKinds: ["echo"],
    stateDir,
    onAssignment: async () => ({ outcome: "completed", output: "done" }),
    onEvent: events.add,
    timing: quickTiming,
  });
  onTestFinished(() => device.close({ graceMs: 500, flushMs: 500 }).catch(() => {}));
  await events.next("connected");
  const spec = { name: "watch", prompt: "x", agentKind: "echo", deviceId: identity.deviceId };
  const { watcher } = await clients.watchers.createWatcher({ slug: "through", spec });
  await clients.watchers.triggerWatcher({ watcherId: watcher?.id ?? "" });
  expect(await events.next("acknowledged")).toMatchObject({ verdict: "stored" });
}

test("cleartext: enrolment, stream and calls go where HTTP_PROXY says, to a host that only the proxy knows", async () => {
  const replica = await startTestReplica(database.url, { PINION_ALLOWED_HOSTS: host });
  const proxy = await startConnectProxy();
  vi.stubEnv("HTTP_PROXY", proxy.address);
  const { port } = new URL(replica.url);
  await useEverything({ url: `http://${host}:${port}`, token: replica.token });
  // Calls, enrolment, stream.
  expect(proxy.passed.length).toBeGreaterThanOrEqual(3);
  expect(new Set(proxy.passed)).toEqual(new Set([`${host}:${port}`]));
});

test.skipIf(!hasOpenssl)("TLS end to end through a proxy that wants a password", async () => {
  const { certFile, keyFile, cert } = makeCertificate();
  const replica = await startTestReplica(database.url, {
    PINION_TLS_CERT_FILE: certFile,
    PINION_TLS_KEY_FILE: keyFile,
  });
  const proxy = await startConnectProxy({ credentials: { name: "me", password: "s:e@cret" } });
  const { port } = new URL(replica.url);
  await useEverything({
    url: `https://localhost:${port}`,
    token: replica.token,
    tls: { ca: Buffer.from(cert) },
    proxy: named(proxy, "me:s%3Ae%40cret@"),
  });
  expect(proxy.passed.length).toBeGreaterThanOrEqual(3);
  expect(proxy.refused).toEqual([]);
});

test("a SOCKS proxy, with and without a password, is asked by name for streams, calls and enrolment", async () => {
  const replica = await startTestReplica(database.url, { PINION_ALLOWED_HOSTS: host });
  const { port } = new URL(replica.url);
  const url = `http://${host}:${port}`;
  const plain = await startSocksProxy();
  vi.stubEnv("ALL_PROXY", `socks5h://${plain.address}`);
  await useEverything({ url, token: replica.token });
  expect(new Set(plain.passed)).toEqual(new Set([`${host}:${port}`]));
  expect(plain.passed.length).toBeGreaterThanOrEqual(3);

  const guarded = await startSocksProxy({ name: "me", password: "s:e@cret" });
  const clients = createClients({
    url,
    token: replica.token,
    proxy: named(guarded, "me:s%3Ae%40cret@", "socks5"),
  });
  onTestFinished(() => clients.close());
  await clients.runs.listRuns({});
  expect(guarded.passed).toHaveLength(1);
  const { events } = startDevice(url, { proxy: named(guarded, "me:wrong@", "socks5") });
  const { reason } = await events.next("retrying");
  expect(reason).toMatch(/the proxy socks5:\/\/127.* \(--proxy\) does not lead to .*[Aa]uthentication/);
  expect(reason).not.toContain("wrong@");
});

test("a result that waits for a stream goes through the proxy by the unary call too", async () => {
  const peer = await startPeer();
  const proxy = await startConnectProxy();
  let drain = () => {};
  const drained = new Promise<void>((done) => {
    drain = done;
  });
  const { events } = startDevice(peer.url, {
    proxy: named(proxy),
    timing: { unaryAfterMs: 50 },
    onAssignment: async () => {
      await drained;
      return { outcome: "completed", output: "done" };
    },
  });
  const session = await peer.session();
  session.assign();
  await session.next("accept");
  session.drain(DrainReason.SHUTDOWN, 60_000);
  await events.next("retrying");
  drain();
  await events.next("acknowledged");
  expect(proxy.passed.length).toBeGreaterThanOrEqual(2);
});

const refusals = [
  [
    { credentials: { name: "me", password: "x" } },
    "",
    /wants a name and a password \(407 .*write them into --proxy: http:\/\/name:password@127/,
  ],
  [
    { credentials: { name: "me", password: "x" } },
    "me:hush@",
    /does not take the name and password that --proxy holds \(407/,
  ],
  [{ status: 407, scheme: "NTLM" }, "", /asks for NTLM authentication \(407 .*only Basic.*cntlm/],
  [{ status: 403 }, "", /--proxy\) does not allow a connection to localhost:\d+ \(403 Forbidden\).*NO_PROXY/],
  [{ status: 502 }, "", /cannot reach localhost:\d+ \(502 Bad Gateway\)/],
  [{ status: 499 }, "", /answers CONNECT localhost:\d+ with 499/],
] as const;

test.each(refusals)("%j with %j is told in words that name the setting", async (options, userinfo, words) => {
  const proxy = await startConnectProxy(options);
  const url = "http://localhost:9";
  const setting = named(proxy, userinfo);
  const { events } = startDevice(url, { proxy: setting });
  const { reason } = await events.next("retrying");
  expect(reason).toMatch(words);
  expect(reason).not.toContain("hush");

  const clients = createClients({ url, token: "pin_pat_x", proxy: setting });
  onTestFinished(() => clients.close());
  const error = await clients.runs.listRuns({}).catch((error: unknown) => error);
  expect(proxyErrorOf(error)).toMatchObject({ setting: "--proxy" });
  const { message, advice } = proxyErrorOf(error)!;
  expect(`${message}; ${advice}`).toMatch(words);
});

test("a proxy that is not there, and one that says nothing, are named", async () => {
  const gone = { url: "127.0.0.1:9", setting: "--proxy" };
  const { events } = startDevice("http://localhost:9", { proxy: gone });
  expect((await events.next("retrying")).reason).toMatch(
    /the proxy http:\/\/127.0.0.1:9 \(--proxy\) cannot be reached: .*ECONNREFUSED.*correct or unset --proxy/,
  );
  const deaf = await startConnectProxy({ isDeaf: true });
  const silent = startDevice("http://localhost:9", { proxy: named(deaf), timing: { dialDeadlineMs: 300 } });
  expect((await silent.events.next("retrying")).reason).toMatch(
    /no connection within 300 ms through the proxy http:\/\/127.*--proxy/,
  );
});

test("a setting that names no proxy ends the daemon with words, and not its password", async () => {
  const proxy = { url: "http://me:hu/sh@proxy:x", setting: "proxy in device.toml" };
  expect(() => startDevice("http://localhost:9", { proxy })).toThrow(
    /^proxy in device.toml is "http:\/\/…@proxy:x"/,
  );
});

test.skipIf(!hasOpenssl)("a request of node:https goes through the same proxy, by an agent", async () => {
  const { cert, key } = makeCertificate();
  const server = createServer({ cert, key }, (_request, response) => response.end("served"));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => void server.close());
  const url = `https://localhost:${(server.address() as AddressInfo).port}/hook`;
  const proxy = await startConnectProxy();
  const ask = (setting: ProxySetting) =>
    new Promise<string>((done, fail) => {
      const agent = httpAgentFor(url, { proxy: setting, agent: { ca: cert } });
      request(url, { agent }, (response) => {
        response.setEncoding("utf8").on("data", (text) => done(text));
      })
        .on("error", fail)
        .end();
    });
  expect(await ask(named(proxy))).toBe("served");
  expect(proxy.passed).toHaveLength(1);
  const closed = await startConnectProxy({ status: 403 });
  await expect(ask(named(closed))).rejects.toThrow(/does not allow a connection/);
});

test.skipIf(!hasOpenssl)(
  "a proxy that speaks TLS itself is dialled by TLS, and its certificate is checked",
  async () => {
    const { cert, key } = makeCertificate();
    const proxy = await startConnectProxy({ tls: { cert, key } });
    const { events } = startDevice("http://localhost:9", { proxy: named(proxy, "", "https") });
    expect((await events.next("retrying")).reason).toMatch(
      /does not lead to localhost:9: .*self-signed certificate/,
    );
  },
);
