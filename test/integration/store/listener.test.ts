import { createServer, connect as dial, type Socket } from "node:net";
import { sql } from "kysely";
import { afterEach, expect, test, vi } from "vitest";
import { type Listener, notificationBytesMax, notify, openListener } from "../../../src/store/pg/listener.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";

const log = createLogger({ level: "silent", name: "test" });
const t = useDatabase();
const listeners: Listener[] = [];
afterEach(async () => {
  await Promise.all(listeners.splice(0).map((listener) => listener.close()));
});

function open(options: { url?: string; channels?: string[]; heartbeatMs?: number } = {}) {
  const heard: string[] = [];
  let resyncs = 0;
  const listener = openListener({
    url: options.url ?? t.url,
    channels: options.channels ?? ["pinion"],
    ...(options.heartbeatMs ? { heartbeatMs: options.heartbeatMs } : {}),
    onNotification: (channel, payload) => heard.push(`${channel}:${payload}`),
    onResync: () => {
      resyncs++;
    },
    log,
  });
  listeners.push(listener);
  return { listener, heard, resyncs: () => resyncs };
}

test("what is announced on a channel is heard, in order, and nothing of other channels", async () => {
  const { listener, heard } = open({ channels: ["replica-A b", "all"] });
  await listener.ready;
  await notify(t.db, "replica-A b", ["1", "2", "3"]);
  await notify(t.db, "elsewhere", ["no"]);
  await notify(t.db, "all", ["4"]);
  await vi.waitFor(() => expect(heard).toEqual(["replica-A b:1", "replica-A b:2", "replica-A b:3", "all:4"]));
});

test("a listener whose backend is terminated listens again and says that it may have missed something", async () => {
  const { listener, heard, resyncs } = open();
  await listener.ready;
  expect(resyncs()).toBe(1);
  await sql`select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = 'pinion listener' and datname = current_database()`.execute(t.db);
  await vi.waitFor(() => expect(resyncs()).toBe(2), { timeout: 10_000 });
  await notify(t.db, "pinion", ["back"]);
  await vi.waitFor(() => expect(heard).toEqual(["pinion:back"]));
});

test("a connection that went half open is noticed by its heartbeat and replaced", async () => {
  const target = new URL(t.url);
  let isBlackhole = false;
  const sockets: Socket[] = [];
  const proxy = createServer((inner) => {
    const outer = dial(Number(target.port), target.hostname);
    sockets.push(inner, outer);
    const silent = isBlackhole;
    inner.on("data", (data) => isBlackhole || silent || outer.write(data)).on("error", () => {});
    outer.on("data", (data) => isBlackhole || silent || inner.write(data)).on("error", () => {});
  });
  await new Promise<void>((done) => proxy.listen(0, "127.0.0.1", done));
  const url = new URL(t.url);
  url.port = String((proxy.address() as { port: number }).port);
  try {
    const { listener, resyncs, heard } = open({ url: url.href, heartbeatMs: 200 });
    await listener.ready;
    isBlackhole = true;
    await vi.waitFor(() => expect(sockets.length).toBeGreaterThan(2), { timeout: 10_000 });
    isBlackhole = false;
    await vi.waitFor(() => expect(resyncs()).toBeGreaterThan(1), { timeout: 20_000 });
    await notify(t.db, "pinion", ["through"]);
    await vi.waitFor(() => expect(heard).toContain("pinion:through"));
  } finally {
    await Promise.all(listeners.splice(0).map((listener) => listener.close()));
    for (const socket of sockets) socket.destroy();
    await new Promise((done) => proxy.close(done));
  }
});

test("a listener that cannot reach the database can be closed at once", async () => {
  const { listener } = open({ url: "postgres://nobody@127.0.0.1:1/none" });
  await listener.close();
  await expect(listener.ready).rejects.toThrow("closed");
});

test("after closing, the connection is gone", async () => {
  const { listener } = open();
  await listener.ready;
  await listener.close();
  const count = () =>
    sql<{ n: number }>`select count(*)::int as n from pg_stat_activity
      where application_name = 'pinion listener' and datname = current_database()`
      .execute(t.db)
      .then((result) => result.rows[0]?.n);
  await vi.waitFor(async () => expect(await count()).toBe(0));
});

test("a listener callback that throws does not end the listening", async () => {
  const heard: string[] = [];
  const listener = openListener({
    url: t.url,
    channels: ["pinion"],
    onNotification: (_channel, payload) => {
      heard.push(payload);
      throw new Error("on purpose");
    },
    onResync: () => {
      throw new Error("on purpose");
    },
    log,
  });
  listeners.push(listener);
  await listener.ready;
  await notify(t.db, "pinion", ["1", "2"]);
  await vi.waitFor(() => expect(heard).toEqual(["1", "2"]));
});

test("many payloads go out in one statement, and one that is too large sends none", async () => {
  const { listener, heard } = open();
  await listener.ready;
  const large = "x".repeat(notificationBytesMax + 1);
  await expect(notify(t.db, "pinion", ["small", large])).rejects.toThrow("too large");
  const payloads = Array.from({ length: 500 }, (_, index) => String(index));
  payloads.push("y".repeat(notificationBytesMax));
  await notify(t.db, "pinion", payloads);
  await vi.waitFor(() => expect(heard).toHaveLength(501));
  expect(heard).toEqual(payloads.map((payload) => `pinion:${payload}`));
  await notify(t.db, "pinion", []);
});
