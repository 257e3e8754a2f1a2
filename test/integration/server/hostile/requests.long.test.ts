/**
 * Requests with an error in any header, pseudo-header, method and target: none reaches the last
 * line of defence.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import {
  flags,
  frameTypes,
  http2Frame,
  literal,
  openHttp2,
  openRaw,
} from "../../../support/hostile/http2.ts";
import { fuzzMs, seedOfRun } from "../../../support/hostile/random.ts";
import { createRandom } from "../../../support/random.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });
let replica: TestReplica;
beforeAll(async () => {
  replica = await openTestReplica(database.url, { PINION_STRANGER_REQUESTS_PER_ADDRESS: "0" });
});
afterAll(() => replica.stop());

const patience = { timeout: fuzzMs() + 120_000 };
const methods = [
  "GET",
  "POST",
  "HEAD",
  "OPTIONS",
  "CONNECT",
  "PUT",
  "DELETE",
  "TRACE",
  "PRI",
  "get",
  "",
  "A B",
  "\u0000",
];
const hosts = [
  "localhost",
  "::1",
  "[::1]:7420",
  "",
  "[",
  "a b",
  "%",
  "localhost:99999",
  ":0",
  "a@b",
  "é",
  "x".repeat(400),
];
const paths = [
  ...[
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "*",
    "",
    "//[",
    "/%",
    "http://::1/",
    "http://localhost/healthz",
    "ftp://x",
  ],
  ...[
    "/pinion.v1.FleetService/ListDevices",
    "/pinion.v1.DeviceService/Connect",
    "/pinion.v1.DeviceService/Enroll",
  ],
  ...[
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.health.v1.Health/Watch",
    "/../../etc/passwd",
  ],
];
const names = [
  ...[
    "authorization",
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "te",
    "expect",
  ],
  ...["accept-encoding", "if-none-match", "x-forwarded-for", "x-request-id", "grpc-timeout", "grpc-encoding"],
  ...[
    "connect-timeout-ms",
    "connect-protocol-version",
    "connect-content-encoding",
    "upgrade",
    "connection",
    "cookie",
  ],
  ...[
    "range",
    "traceparent",
    "__proto__",
    "constructor",
    "host",
    "x-\u00ff",
    ":authority",
    ":path",
    ":protocol",
  ],
];
const values = [
  ...[
    "",
    " ",
    "application/grpc",
    "application/json",
    "application/connect+json",
    "application/grpc-web+proto",
    "gzip",
  ],
  ...[
    "Bearer x",
    "Bearer pin_pat_",
    "100-continue",
    "websocket",
    "h2c",
    "99999999999999999999",
    "-1",
    "1e9S",
    "0",
  ],
  ...[
    "\u00ff\u00fe",
    "a,b;q=\u0001",
    "%00",
    "__proto__",
    "chunked",
    "x".repeat(5_000),
    "::1, 1.2.3.4, [",
    "*",
  ],
];

async function uncaught(): Promise<number> {
  const text = await (await fetch(`${replica.url}/metrics`)).text();
  const counts = [...text.matchAll(/^pinion_uncaught_errors_total\{[^}]*\} (\d+)$/gm)];
  expect(counts.length).toBeGreaterThan(0);
  return counts.reduce((sum, [, count]) => sum + Number(count), 0);
}

test("over HTTP/1", patience, async () => {
  const random = createRandom(seedOfRun("requests of HTTP/1"));
  const until = performance.now() + fuzzMs(0.5);
  let count = 0;
  for (; performance.now() < until; count += 20) {
    const connections = await Promise.all(Array.from({ length: 20 }, () => openRaw(replica.port)));
    await Promise.all(
      connections.map((connection) => {
        const more = Array.from(
          { length: random.whole(0, 6) },
          () => `${random.pick(names)}: ${random.pick(values)}\r\n`,
        );
        const host = random.next() < 0.8 ? `Host: ${random.pick(hosts)}\r\n` : "";
        const line = `${random.pick(methods)} ${random.pick(paths)} HTTP/${random.pick(["1.1", "1.0", "0.9", "2.0"])}`;
        return connection.write(
          Buffer.from(
            `${line}\r\n${host}${more.join("")}\r\n${random.pick(["", "{}", "0\r\n\r\n"])}`,
            "latin1",
          ),
        );
      }),
    );
    for (const { socket } of connections) socket.end();
    await new Promise((resolve) => setTimeout(resolve, 5));
    for (const { socket } of connections) socket.destroy();
  }
  process.stderr.write(`  ${count} requests of HTTP/1\n`);
  expect(await uncaught()).toBe(0);
});

test("over HTTP/2", patience, async () => {
  const random = createRandom(seedOfRun("requests of HTTP/2"));
  const until = performance.now() + fuzzMs(0.5);
  let count = 0;
  while (performance.now() < until) {
    const connection = await openHttp2(replica.port);
    for (let streamId = 1; streamId < 40 && !connection.isClosed(); streamId += 2) {
      count += 1;
      const fields: [string, string][] = [
        [":method", random.pick(methods)],
        [":path", random.pick(paths)],
        [":scheme", random.pick(["http", "https", "", "x"])],
        [":authority", random.pick(hosts)],
      ];
      const kept = fields.filter(() => random.next() < 0.93);
      for (let extra = random.whole(0, 6); extra > 0; extra -= 1)
        kept.push([random.pick(names), random.pick(values)]);
      const payload = Buffer.concat(kept.map(([name, value]) => literal(name, value))).subarray(0, 16_000);
      const isWhole = random.next() < 0.5;
      await connection.write(
        http2Frame(frameTypes.headers, {
          flags: flags.endHeaders | (isWhole ? flags.endStream : 0),
          streamId,
          payload,
        }),
      );
      if (!isWhole) {
        const body = random.bytes(random.whole(0, 200));
        await connection.write(
          http2Frame(frameTypes.data, { flags: flags.endStream, streamId, payload: body }),
        );
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
    connection.socket.destroy();
  }
  process.stderr.write(`  ${count} requests of HTTP/2\n`);
  expect(await uncaught()).toBe(0);
});
