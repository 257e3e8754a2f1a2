import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request as httpRequest, type ServerResponse } from "node:http";
import { type ClientHttp2Session, connect as http2Connect } from "node:http2";
import { request as httpsRequest } from "node:https";
import { connect as dial, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, expect, test, vi } from "vitest";
import { openPort, type Port, type PortOptions } from "../../../../src/server/http/port/port.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

const log = createLogger({ level: "silent", name: "test" });
const ports: Port[] = [];
const sockets: Socket[] = [];
const sessions: ClientHttp2Session[] = [];

afterEach(async () => {
  for (const session of sessions.splice(0)) session.destroy();
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(ports.splice(0).map((port) => port.close(0)));
});

async function open(options: Partial<PortOptions> = {}): Promise<Port> {
  const port = await openPort({
    host: "127.0.0.1",
    port: 0,
    log,
    handler: (request, response) => {
      response.end(`HTTP/${request.httpVersion} ${request.url}`);
    },
    ...options,
  });
  ports.push(port);
  return port;
}

function connect(port: Port, options: { rejectUnauthorized?: boolean } = {}): ClientHttp2Session {
  const session = http2Connect(port.url, options);
  session.on("error", () => {});
  sessions.push(session);
  return session;
}

async function get2(session: ClientHttp2Session, path: string): Promise<string> {
  const stream = session.request({ ":path": path });
  return await readAll(stream);
}

async function readAll(readable: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of readable) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString();
}

async function get1(url: string, options: object = {}): Promise<string> {
  const send = url.startsWith("https") ? httpsRequest : httpRequest;
  const request = send(url, { agent: false, ...options });
  request.end();
  const [response] = await once(request, "response");
  return await readAll(response);
}

async function dialRaw(port: Port): Promise<Socket> {
  const socket = dial(port.port, "127.0.0.1");
  socket.on("error", () => {});
  sockets.push(socket);
  await once(socket, "connect");
  return socket;
}

function makeCertificate(): { cert: string; key: string } {
  const dir = mkdtempSync(join(tmpdir(), "pinion-tls-"));
  try {
    const files = ["-keyout", join(dir, "key.pem"), "-out", join(dir, "cert.pem")];
    const what = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    execFileSync("openssl", [...what, "-days", "2", "-subj", "/CN=localhost", ...files], { stdio: "ignore" });
    return {
      cert: readFileSync(join(dir, "cert.pem"), "utf8"),
      key: readFileSync(join(dir, "key.pem"), "utf8"),
    };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function hasOpenssl(): boolean {
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

test("HTTP/1.1 and HTTP/2 are served on the same port", async () => {
  const port = await open();
  expect(await get1(`${port.url}/a`)).toBe("HTTP/1.1 /a");
  expect(await get2(connect(port), "/b")).toBe("HTTP/2.0 /b");
});

test("an HTTP/2 connection whose first bytes arrive one by one is served whole", async () => {
  const port = await open();
  const target = await dialRaw(port);
  const session = http2Connect(port.url, {
    // A connection that sends byte by byte: every byte is a separate write, and Nagle's algorithm
    // is off.
    createConnection: () => {
      target.setNoDelay(true);
      const write = target.write.bind(target);
      let budget = 40;
      target.write = ((chunk: Buffer, ...rest: never[]) => {
        while (budget > 0 && chunk.length > 1) {
          write(chunk.subarray(0, 1));
          chunk = chunk.subarray(1);
          budget--;
        }
        return write(chunk, ...rest);
      }) as typeof target.write;
      return target;
    },
  });
  session.on("error", () => {});
  sessions.push(session);
  expect(await get2(session, "/slow")).toBe("HTTP/2.0 /slow");
});

test.runIf(hasOpenssl())("with TLS both protocols are served within it, and nothing without it", async () => {
  const handler = vi.fn<PortOptions["handler"]>((request, response) => {
    response.end(`HTTP/${request.httpVersion}`);
  });
  const port = await open({ tls: makeCertificate(), handler, firstBytesTimeoutMs: 300 });
  expect(port.url).toMatch(/^https:/);
  expect(await get1(port.url, { rejectUnauthorized: false })).toBe("HTTP/1.1");
  const session = connect(port, { rejectUnauthorized: false });
  expect(await get2(session, "/")).toBe("HTTP/2.0");
  expect(handler).toHaveBeenCalledTimes(2);

  const cleartext = port.url.replace("https", "http");
  expect(await get1(cleartext)).toContain("https://");
  const plain = http2Connect(cleartext);
  plain.on("error", () => {});
  sessions.push(plain);
  expect(await get2(plain, "/")).toContain("https://");
  expect(handler).toHaveBeenCalledTimes(2);

  // Longer than the deadline for the first bytes, which has been met on this connection.
  await new Promise((done) => setTimeout(done, 500));
  expect(await get2(session, "/")).toBe("HTTP/2.0");
});

test("a connection that says nothing is cut", async () => {
  const port = await open({ firstBytesTimeoutMs: 100 });
  const socket = await dialRaw(port);
  socket.resume();
  await once(socket, "close");
  await vi.waitFor(() => expect(port.stats().connections).toBe(0));
});

test("a connection that says half of an HTTP/2 greeting is cut", async () => {
  const port = await open({ firstBytesTimeoutMs: 100 });
  const socket = await dialRaw(port);
  socket.resume();
  socket.write("PRI * HT");
  await once(socket, "close");
});

test("a request whose headers drip is cut", async () => {
  const port = await open({ headersTimeoutMs: 200 });
  const socket = await dialRaw(port);
  socket.write("GET / HTTP/1.1\r\nhost: x\r\n");
  const answer = await readAll(socket);
  expect(answer).toMatch(/^HTTP\/1.1 408/);
});

test("a connection that was served once may rest longer than the deadline for the first bytes", async () => {
  const port = await open({ firstBytesTimeoutMs: 100 });
  const session = connect(port);
  await get2(session, "/");
  await new Promise((done) => setTimeout(done, 300));
  expect(await get2(session, "/again")).toBe("HTTP/2.0 /again");
});

test("nonsense is answered and does no harm", async () => {
  const port = await open();
  const socket = await dialRaw(port);
  socket.write("\x00\x01\x02 nonsense\r\n\r\n");
  expect(await readAll(socket)).toMatch(/^HTTP\/1.1 400/);
  const tls = await dialRaw(port);
  tls.write(Buffer.from([0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]));
  await readAll(tls).catch(() => {});
  for (let round = 0; round < 20; round++) {
    const greeted = await dialRaw(port);
    greeted.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), randomBytes(200_000)]));
    if (round % 2 === 0) greeted.destroy();
    else await readAll(greeted).catch(() => {});
  }
  expect(await get1(port.url)).toBe("HTTP/1.1 /");
});

test("a peer that no longer answers pings loses its session, and its streams end", async () => {
  const ended = Promise.withResolvers<void>();
  const port = await open({
    pingIntervalMs: 50,
    pingTimeoutMs: 100,
    handler: (_request, response) => {
      (response as ServerResponse).writeHead(200).flushHeaders();
      response.on("close", () => ended.resolve());
    },
  });
  const inner = await dialRaw(port);
  const session = http2Connect(port.url, { createConnection: () => inner });
  session.on("error", () => {});
  sessions.push(session);
  const stream = session.request({ ":path": "/" });
  stream.on("error", () => {});
  await once(stream, "response");
  // The session answers pings automatically; a session that no longer reads does not answer.
  (inner as unknown as { _handle: { readStop(): void } })._handle.readStop();
  await ended.promise;
  await vi.waitFor(() => expect(port.stats()).toEqual({ connections: 0, sessions: 0 }));
});

test("a peer that is heard of is not pinged", async () => {
  const port = await open({ pingIntervalMs: 200 });
  const session = connect(port);
  let pings = 0;
  session.on("ping", () => pings++);
  // The client's own pings count as traffic; they go on for longer than three intervals.
  for (const until = performance.now() + 700; performance.now() < until; ) {
    await new Promise((resolve) => session.ping(resolve));
  }
  expect(pings).toBe(0);
});

test("a peer that says nothing is pinged at every look: an answer is not its own word", async () => {
  const port = await open({ pingIntervalMs: 50 });
  const session = connect(port);
  const pinged: number[] = [];
  session.on("ping", () => pinged.push(performance.now()));
  await vi.waitFor(() => expect(pinged.length).toBeGreaterThan(6), 5_000);
  const gaps = pinged.slice(1).map((at, index) => at - pinged[index]!);
  // Every second look would make all of them twice as long.
  expect(Math.min(...gaps)).toBeLessThan(90);
});

test("a peer that answers its pings keeps its session", async () => {
  const port = await open({ pingIntervalMs: 10, pingTimeoutMs: 2_000 });
  const session = connect(port);
  let pings = 0;
  session.on("ping", () => pings++);
  await vi.waitFor(() => expect(pings).toBeGreaterThan(5));
  expect(await get2(session, "/")).toBe("HTTP/2.0 /");
});

test("peers that reset their connections do no harm", async () => {
  const port = await open({
    handler: (_request, response) => void (response as ServerResponse).write("open"),
  });
  for (let index = 0; index < 20; index++) {
    const socket = await dialRaw(port);
    socket.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    await once(socket, "data");
    socket.resetAndDestroy();
  }
  const raw = await Promise.all(Array.from({ length: 10 }, () => dialRaw(port)));
  for (const socket of raw) {
    const session = http2Connect(port.url, { createConnection: () => socket });
    session.on("error", () => {});
    sessions.push(session);
    const stream = session.request({ ":path": "/" });
    stream.on("error", () => {});
    await once(stream, "response");
    socket.resetAndDestroy();
  }
  await vi.waitFor(() => expect(port.stats()).toEqual({ connections: 0, sessions: 0 }));
});

test("beyond its bound no connection is taken", async () => {
  const port = await open({ connectionsMax: 1 });
  await dialRaw(port);
  await vi.waitFor(() => expect(port.stats().connections).toBe(1));
  await expect(get1(port.url)).rejects.toThrow();
});

test("draining takes no new connection and keeps those that are there", async () => {
  const port = await open();
  const session = connect(port);
  await get2(session, "/");
  port.drain();
  await expect(get1(port.url)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  expect(await get2(session, "/still")).toBe("HTTP/2.0 /still");
});

test("closing lets a request end that is under way, and then closes at once", async () => {
  const finish = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  let count = 0;
  const port = await open({
    handler: async (_request, response) => {
      if (++count === 2) arrived.resolve();
      await finish.promise;
      response.end("whole");
    },
  });
  const answers = Promise.all([get2(connect(port), "/"), get1(port.url)]);
  await arrived.promise;
  const startedAt = performance.now();
  const closing = port.close(20_000);
  finish.resolve();
  expect(await answers).toEqual(["whole", "whole"]);
  await closing;
  expect(performance.now() - startedAt).toBeLessThan(5_000);
});

test("closing cuts what is left after the grace, and connections that rest at once", async () => {
  const port = await open({
    handler: (_request, response) => void (response as ServerResponse).write("open"),
  });
  const session = connect(port);
  const stream = session.request({ ":path": "/" });
  stream.on("error", () => {});
  await once(stream, "response");
  const silent = await dialRaw(port);
  silent.resume();
  await port.close(50);
  expect(port.stats()).toEqual({ connections: 0, sessions: 0 });
});

test("a port that is taken is named, with what to do", async () => {
  const port = await open();
  await expect(open({ port: port.port })).rejects.toThrow(new RegExp(`port ${port.port}.*--port`));
});

test("a stream that stays open does not keep the headers of its request", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  let headers: WeakRef<object> | undefined;
  const port = await open({
    takeStream(stream, received) {
      headers = new WeakRef(received);
      stream.respond([":status", "200"]);
      return new Promise(() => {});
    },
  });
  const stream = connect(port).request({ ":method": "POST", ":path": "/" });
  await once(stream, "response");
  await vi.waitFor(() => {
    collect();
    expect(headers?.deref()).toBeUndefined();
  });
  expect(stream.closed).toBe(false);
});
