/** Attacks on the port, below any rpc: no token is needed for them. */
import { setTimeout as delay } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import {
  flags,
  frameTypes,
  greeting,
  grpcHeaders,
  http2Frame,
  literal,
  openHttp2,
  openRaw,
  type RawConnection,
} from "../../../support/hostile/http2.ts";
import { fuzzMs, seedOfRun } from "../../../support/hostile/random.ts";
import { startTarget, type Target, withstand } from "../../../support/hostile/target.ts";
import { createRandom } from "../../../support/random.ts";

const database = useDatabase({ per: "file" });
let target: Target;
beforeAll(async () => {
  target = await startTarget(database.url);
}, 60_000);
afterAll(() => target?.stop());

const patience = { timeout: fuzzMs() + 120_000 };
const path = "/pinion.v1.RunService/ListRuns";
const connectPath = "/pinion.v1.DeviceService/Connect";

function hangUp(connections: readonly RawConnection[]): void {
  for (const { socket } of connections) socket.destroy();
}

test("random bytes, and random bytes after a good beginning", patience, async () => {
  const random = createRandom(seedOfRun("random bytes"));
  const beginnings = [
    Buffer.alloc(0),
    greeting,
    Buffer.concat([greeting, http2Frame(frameTypes.settings)]),
    Buffer.from("POST /pinion.v1.RunService/ListRuns HTTP/1.1\r\n"),
    Buffer.from("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"),
    Buffer.from([0x16, 0x03, 0x01]),
  ];
  await withstand(target, "random bytes", async () => {
    const until = performance.now() + fuzzMs(0.25);
    while (performance.now() < until) {
      const connections = await Promise.all(Array.from({ length: 20 }, () => openRaw(target.port)));
      await Promise.all(
        connections.map((connection) =>
          connection.write(Buffer.concat([random.pick(beginnings), random.bytes(random.whole(1, 4_000))])),
        ),
      );
      hangUp(connections);
    }
  });
});

test("HTTP/2 with frames that are wrong in every field", patience, async () => {
  const random = createRandom(seedOfRun("wrong frames"));
  await withstand(target, "wrong frames", async () => {
    const until = performance.now() + fuzzMs(0.25);
    while (performance.now() < until) {
      const connections = await Promise.all(Array.from({ length: 10 }, () => openHttp2(target.port)));
      await Promise.all(
        connections.map(async (connection) => {
          for (let count = 0; count < 30 && !connection.isClosed(); count += 1) {
            const isCall = random.next() < 0.3;
            const payload = isCall
              ? grpcHeaders(random.pick([path, connectPath, "/", "*", ""]))
              : random.bytes(random.whole(0, 300));
            await connection.write(
              http2Frame(isCall ? frameTypes.headers : random.whole(0, 12), {
                flags: random.pick([0, 1, 4, 5, 8, 32, 0xff]),
                streamId: random.pick([0, 1, 2, 3, 5, 7, 0x7fffffff, 0xffffffff]),
                payload,
                ...(random.next() < 0.1 ? { length: random.whole(0, 0xffffff) } : {}),
              }),
            );
          }
        }),
      );
      hangUp(connections);
    }
  });
});

test("streams that are opened and reset at once", patience, async () => {
  await withstand(target, "rapid reset", async () => {
    for (let round = 0; round < 5; round += 1) {
      const connection = await openHttp2(target.port);
      for (let streamId = 1; streamId < 20_000 && !connection.isClosed(); streamId += 200) {
        const frames: Buffer[] = [];
        for (let id = streamId; id < streamId + 200; id += 2) {
          frames.push(
            http2Frame(frameTypes.headers, {
              flags: flags.endHeaders,
              streamId: id,
              payload: grpcHeaders(path),
            }),
            http2Frame(frameTypes.reset, { streamId: id, payload: Buffer.from([0, 0, 0, 8]) }),
          );
        }
        await connection.write(Buffer.concat(frames));
      }
      // A few resets are enough.
      await Promise.race([connection.closed, delay(10_000)]);
      expect(connection.isClosed()).toBe(true);
    }
  });
});

test("header floods: too many, too large, without an end, and packed small", patience, async () => {
  const large = literal("x-flood", "x".repeat(8_000));
  // Indexed once in the dynamic table, then named by a byte each.
  const packed = Buffer.concat([
    Buffer.from([0x40]),
    literal("x-bomb", "x".repeat(3_000)).subarray(1),
    Buffer.alloc(10_000, 0xbe),
  ]);
  await withstand(target, "header floods", async () => {
    for (let round = 0; round < 5; round += 1) {
      const many = await openHttp2(target.port);
      await many.write(
        http2Frame(frameTypes.headers, {
          flags: flags.endHeaders | flags.endStream,
          streamId: 1,
          payload: Buffer.concat([
            grpcHeaders(path),
            ...Array.from({ length: 800 }, (_, index) => literal(`x-${index}`, "y")),
          ]).subarray(0, 16_384),
        }),
      );
      const bomb = await openHttp2(target.port);
      await bomb.write(
        http2Frame(frameTypes.headers, { flags: flags.endHeaders, streamId: 1, payload: packed }),
      );
      const endless = await openHttp2(target.port);
      await endless.write(http2Frame(frameTypes.headers, { streamId: 1, payload: grpcHeaders(path) }));
      for (let count = 0; count < 2_000 && !endless.isClosed(); count += 1) {
        await endless.write(http2Frame(frameTypes.continuation, { streamId: 1, payload: large }));
      }
      await Promise.race([endless.closed, delay(10_000)]);
      expect(endless.isClosed(), "headers without an end are cut").toBe(true);
      const old = await openRaw(target.port);
      await old.write(Buffer.from(`POST ${path} HTTP/1.1\r\nhost: x\r\n`));
      for (let count = 0; count < 200 && !old.isClosed(); count += 1) {
        await old.write(Buffer.from(`x-${count}: ${"y".repeat(1_000)}\r\n`));
      }
      hangUp([many, bomb, endless, old]);
    }
  });
});

test("floods of settings, pings, empty frames and window updates", patience, async () => {
  const floods = [
    http2Frame(frameTypes.settings),
    http2Frame(frameTypes.ping, { payload: Buffer.alloc(8) }),
    http2Frame(frameTypes.windowUpdate, { payload: Buffer.from([0, 0, 0, 1]) }),
    http2Frame(frameTypes.priority, { streamId: 1, payload: Buffer.alloc(5) }),
    http2Frame(frameTypes.data, { streamId: 1 }),
  ];
  await withstand(target, "control frames", async () => {
    for (const frame of floods) {
      // Once reading the answers, and once not: then they must not pile up.
      for (const isReading of [true, false]) {
        const connection = await openHttp2(target.port, { isReading });
        await connection.write(
          http2Frame(frameTypes.headers, {
            flags: flags.endHeaders,
            streamId: 1,
            payload: grpcHeaders(path),
          }),
        );
        const many = Buffer.concat(Array.from({ length: 1_000 }, () => frame));
        for (let count = 0; count < 100 && !connection.isClosed(); count += 1) await connection.write(many);
        hangUp([connection]);
      }
    }
  });
});

test("two thousand connections that say nothing, half a greeting, or drip", patience, async () => {
  const halves = [
    "",
    "PRI * HT",
    "POST /x HTTP/1.1\r\nx: ",
    "\x16\x03\x01",
    "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n",
  ];
  await withstand(target, "half-open connections", async () => {
    const connections: RawConnection[] = [];
    for (let count = 0; count < 2_000; count += 100) {
      connections.push(...(await Promise.all(Array.from({ length: 100 }, () => openRaw(target.port)))));
    }
    await Promise.all(
      connections.map((connection, index) =>
        connection.write(Buffer.from(halves[index % halves.length]!, "latin1")),
      ),
    );
    // Connections without a begun request are cut after ten seconds; a request has a minute.
    await Promise.race([
      Promise.all(connections.filter((_, index) => index % halves.length < 4).map(({ closed }) => closed)),
      delay(40_000).then(() => expect.fail("connections without a request are still open")),
    ]);
    hangUp(connections);
  });
});

test("bodies that nobody has a token for", patience, async () => {
  // A frame with a stated length of four megabytes, without the last byte, on the maximum number of
  // streams of a connection.
  const claimed = 4 * 1024 * 1024 - 5;
  const head = Buffer.alloc(5);
  head.writeUInt32BE(claimed, 1);
  const piece = Buffer.alloc(16_384, 1);
  await withstand(target, "bodies without a token", async () => {
    const connections = await Promise.all(Array.from({ length: 4 }, () => openHttp2(target.port)));
    await Promise.all(
      connections.map(async (connection) => {
        for (let streamId = 1; streamId < 200; streamId += 2) {
          await connection.write(
            http2Frame(frameTypes.headers, { flags: flags.endHeaders, streamId, payload: grpcHeaders(path) }),
          );
          await connection.write(http2Frame(frameTypes.data, { streamId, payload: head }));
        }
        for (let round = 0; round < 40 && !connection.isClosed(); round += 1) {
          for (let streamId = 1; streamId < 200 && !connection.isClosed(); streamId += 2) {
            await connection.write(http2Frame(frameTypes.data, { streamId, payload: piece }));
          }
        }
      }),
    );
    hangUp(connections);
  });
});

test("compressed bodies that grow a thousandfold", patience, async () => {
  const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024));
  await withstand(target, "gzip bombs", async () => {
    const codes = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const response = await fetch(`${target.url}${path}`, {
          method: "POST",
          headers: {
            "content-type": "application/proto",
            "content-encoding": "gzip",
            authorization: `Bearer ${target.token}`,
          },
          body: bomb,
        }).catch(() => undefined);
        return response?.status ?? 0;
      }),
    );
    expect(codes.every((code) => code >= 400 || code === 0)).toBe(true);
  });
});
