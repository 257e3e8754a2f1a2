/**
 * The authority of a request: a malformed authority is refused with a reason, on every protocol and
 * path.
 */
import { once } from "node:events";
import { type ClientHttp2Session, constants, connect as http2Connect } from "node:http2";
import { connect as dial, type Socket } from "node:net";
import { createClients } from "@pinion/client";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { authorityProblem } from "../../../../src/server/http/port/authority.ts";
import { hasOpenssl, makeCertificate } from "../../../support/certificate.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import {
  flags,
  frameTypes,
  greeting,
  grpcHeaders,
  http2Frame,
  openRaw,
} from "../../../support/hostile/http2.ts";
import { openTestReplica, startTestReplica, type TestReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });
let replica: TestReplica;
beforeAll(async () => {
  replica = await openTestReplica(database.url);
});
afterAll(() => replica.stop());

const malformed = [
  ...[
    "::1",
    "",
    "[::1",
    "a b",
    "%",
    "localhost:99999",
    ":0",
    "::1:7420",
    "[]",
    "[::1]x",
    "[::1%eth0]",
    "a:b",
  ],
  ...[
    "1.2.3.4.5",
    "999.1.1.1",
    "user@host",
    "host/path",
    "host?x",
    "host#x",
    "a\\b",
    "é",
    "a,b",
    "[1.2.3.4]",
  ],
  ...["x".repeat(300), "localhost:7420:7420", "localhost:-1", "localhost:+1", "<script>"],
];
const wellFormed = [
  ...["localhost", "localhost:7420", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:7420", "[2001:db8::1]:443"],
  ...[
    "pinion.example.org",
    "pinion_server:7420",
    "PINION.example.org.",
    "a-b.c",
    "localhost:",
    "xn--bcher-kva.example",
  ],
];
const paths = ["/pinion.v1.FleetService/ListDevices", "/healthz", "/readyz", "/metrics", "/", "/nothing"];

test.each(wellFormed)("%j is an authority", (authority) => {
  expect(authorityProblem(authority)).toBeUndefined();
});

test.each(malformed)("%j is none, and the reason says how to write one", (authority) => {
  expect(authorityProblem(authority)).toMatch(/write it like/);
});

/** Sends text to the port and returns the answers until the port or `until` ends the connection. */
async function exchange(text: string, port = replica.port): Promise<string> {
  const socket: Socket = dial(port, "127.0.0.1");
  socket.on("error", () => {});
  onTestFinished(() => void socket.destroy());
  await once(socket, "connect");
  let answer = "";
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    answer += chunk;
  });
  socket.end(Buffer.from(text, "latin1"));
  await once(socket, "close");
  return answer;
}

const lives = async () => expect((await fetch(`${replica.url}/healthz`)).status).toBe(200);

test.each(paths)("over HTTP/1.1 and HTTP/1.0 %s is refused to a malformed host", async (path) => {
  for (const version of ["1.1", "1.0"]) {
    for (const host of malformed.filter((text) => !text.includes("é"))) {
      const answer = await exchange(
        `POST ${path} HTTP/${version}\r\nHost: ${host}\r\ncontent-type: application/json\r\n` +
          "connection: close\r\ncontent-length: 2\r\n\r\n{}",
      );
      expect(answer, `${version} ${host}`).toMatch(/^HTTP\/1\.1 400 /);
      expect(answer, `${version} ${host}`).toMatch(/write it like "pinion\.example\.org"/);
    }
  }
  await lives();
});

test("HTTP/1.0 without a host, and two hosts, are refused with a reason", async () => {
  expect(await exchange("GET /healthz HTTP/1.0\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 [\s\S]*names no host/);
  const two = "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nconnection: close\r\n\r\n";
  expect(await exchange(two)).toMatch(/^HTTP\/1\.1 400 [\s\S]*more than one host/);
  await lives();
});

test("HTTP/1 that calls itself 2.0 is refused, whatever its host", async () => {
  const path = "/pinion.v1.FleetService/ListDevices";
  for (const host of ["::1", "localhost"]) {
    const answer = await exchange(`POST ${path} HTTP/2.0\r\nHost: ${host}\r\ncontent-length: 0\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  }
});

test("a target in absolute form is served by its path, and its own authority counts", async () => {
  const get = (target: string) =>
    exchange(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n`);
  expect(await get("http://pinion.example.org/healthz?x=1")).toMatch(/^HTTP\/1\.1 200 [\s\S]*ok\n$/);
  expect(await get("HTTP://[::1]:7420/healthz")).toMatch(/^HTTP\/1\.1 200 /);
  expect(await get("http://localhost")).toMatch(/^HTTP\/1\.1 200 [\s\S]*<html/i);
  for (const target of [
    "http://::1/healthz",
    "http:///healthz",
    "http://a:99999/",
    "ftp://a/",
    "//[",
    "healthz",
  ]) {
    const answer = await get(target);
    expect(answer, target).toMatch(/^HTTP\/1\.1 (400|404) /);
  }
  await lives();
});

test("OPTIONS *, CONNECT and upgrades are answered, and harm nothing", async () => {
  const ask = (head: string) => exchange(`${head}\r\nconnection: close\r\n\r\n`);
  expect(await ask("OPTIONS * HTTP/1.1\r\nHost: localhost")).toMatch(/^HTTP\/1\.1 404 /);
  expect(await ask("OPTIONS * HTTP/1.1\r\nHost: ::1")).toMatch(/^HTTP\/1\.1 400 /);
  expect(await ask("GET * HTTP/1.1\r\nHost: localhost")).toMatch(/^HTTP\/1\.1 400 /);
  for (const target of ["localhost:7420", "::1:7420", "%", "[", "/"]) {
    expect(await ask(`CONNECT ${target} HTTP/1.1\r\nHost: ::1`)).toMatch(/^HTTP\/1\.1 (405|400) /);
  }
  for (const host of ["localhost", "::1", "["]) {
    for (const upgrade of ["websocket", "h2c", "TLS/1.0"]) {
      const answer = await exchange(
        `GET /healthz HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ${upgrade}\r\n` +
          "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
      );
      expect(answer, `${host} ${upgrade}`).toMatch(/^HTTP\/1\.1 (200|400) /);
    }
  }
  await lives();
});

const nodesOwn = "(reset by Node)";

/**
 * The status and the text of the answer to a request with pseudo-headers that Node's own client
 * would refuse to write.
 */
async function ask2(
  session: ClientHttp2Session,
  headers: Record<string, string>,
): Promise<{ status: number; text: string }> {
  const stream = session.request(headers);
  stream.on("error", () => {});
  stream.end();
  const answer = await once(stream, "response").then(
    ([headers]) => headers as Record<string, unknown>,
    // Node itself refuses characters that are invalid in a header.
    () => undefined,
  );
  if (!answer)
    return { status: stream.rstCode === constants.NGHTTP2_PROTOCOL_ERROR ? 400 : 0, text: nodesOwn };
  let text = "";
  for await (const chunk of stream) text += chunk;
  return { status: Number(answer[":status"]), text };
}

function session2(url: string): ClientHttp2Session {
  const session = http2Connect(url, { rejectUnauthorized: false });
  session.on("error", () => {});
  onTestFinished(() => session.destroy());
  return session;
}

const contentTypes = [
  "application/grpc",
  "application/json",
  "application/connect+proto",
  "application/grpc-web",
];

test("over HTTP/2 a malformed authority is refused with a reason, whatever the protocol and path", async () => {
  const session = session2(replica.url);
  const asked = [...paths, "/pinion.v1.DeviceService/Connect"];
  for (const authority of malformed) {
    for (const [index, path] of asked.entries()) {
      const found = await ask2(session, {
        ":method": "POST",
        ":path": path,
        ":authority": authority,
        "content-type": contentTypes[index % contentTypes.length]!,
      });
      expect(found, `${authority} ${path}`).toMatchObject({ status: 400 });
      if (found.text !== nodesOwn) expect(found.text).toMatch(/write it like/);
    }
  }
  const host = await ask2(session, { ":method": "GET", ":path": "/healthz", host: "[::1]:7420" });
  expect(host).toMatchObject({ status: 200, text: "ok\n" });
  const both = { ":method": "GET", ":path": "/healthz", ":authority": "a", host: "b" };
  expect(await ask2(session, both)).toMatchObject({ status: 400, text: expect.stringMatching(/different/) });
  const tunnel = session.request({ ":method": "CONNECT", ":authority": "localhost:1" });
  tunnel.on("error", () => {});
  const [refused] = await once(tunnel, "response");
  expect(refused[":status"]).toBe(405);
  await lives();
});

test("raw HTTP/2 frames with any authority, or none, harm nobody", async () => {
  for (const authority of [...malformed, "\u0000", "\r\n", "a\tb"]) {
    const raw = await openRaw(replica.port);
    onTestFinished(() => void raw.socket.destroy());
    const payload = grpcHeaders("/pinion.v1.DeviceService/Connect", { ":authority": authority });
    await raw.write(
      Buffer.concat([
        greeting,
        http2Frame(frameTypes.settings),
        http2Frame(frameTypes.headers, { flags: flags.endHeaders, streamId: 1, payload }),
      ]),
    );
    raw.socket.end();
    await raw.closed;
  }
  await lives();
});

test.runIf(hasOpenssl)("with TLS the same holds", async () => {
  const { certFile, keyFile } = makeCertificate();
  const own = await startTestReplica(database.url, {
    PINION_TLS_CERT_FILE: certFile,
    PINION_TLS_KEY_FILE: keyFile,
  });
  const session = session2(own.url);
  const ask = (authority: string) =>
    ask2(session, { ":method": "GET", ":path": "/healthz", ":authority": authority });
  expect(await ask("::1:7420")).toMatchObject({ status: 400 });
  expect(await ask("[::1]:7420")).toMatchObject({ status: 200 });
  const stream = session.request({ ":path": "/healthz" });
  const [headers] = await once(stream, "response");
  expect(headers["strict-transport-security"]).toBe("max-age=31536000");
});

test("a client and a device reach a server by the IPv6 literal of its address", async () => {
  const own = await startTestReplica(database.url, { PINION_HOST: "::1" });
  expect(own.url).toBe(`http://[::1]:${own.port}`);
  for (const protocol of ["connect", "grpc", "grpc-web"] as const) {
    const clients = createClients({ url: own.url, token: own.token, protocol });
    onTestFinished(() => clients.close());
    expect((await clients.fleet.listDevices({})).devices).toBeDefined();
  }
  await connect(own.url, await enrolDevice(own.clients));
});
