/**
 * Two replicas and a bus that is dead from the start, or that asks who they are: runs are late by
 * at most the sweep, and no run is lost.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { checkBus } from "../../../../src/cli/doctor/bus.ts";
import { type BusKind, missing } from "../../../support/bus.ts";
import { createTestDatabase, useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { startFaultProxy } from "../../../support/fault-proxy.ts";
import { startNats } from "../../../support/nats.ts";
import { eventually } from "../../../support/processes.ts";
import { startTestReplica } from "../../../support/server.ts";
import { startWork, takeOn, untilStatus } from "../../../support/work.ts";

/** Longer than any test, so that every message arrives over the bus or from a resync. */
const noSweep = { PINION_SWEEP_INTERVAL_MS: "3600000" };
/** In addition to the sweep: the time of the pass and the claim on a busy machine. */
const busyMs = 4_000;

type Dead = { env: Record<string, string>; drop?: () => Promise<void> };

/** Configurations in which two replicas never hear of each other's commits. */
const deadFromTheStart: Record<string, { kind: BusKind; env(database: { url: string }): Promise<Dead> }> = {
  "whose LISTEN was dropped": {
    kind: "postgres",
    async env({ url }) {
      const proxy = await startFaultProxy({ port: Number(new URL(url).port || "5432") });
      onTestFinished(() => proxy.close());
      const through = new URL(url);
      through.port = String(proxy.port);
      return {
        env: { DATABASE_DIRECT_URL: through.href },
        // A replica does not start before its bus listens; at this moment the replica has received
        // no calls yet.
        async drop() {
          proxy.set({ onConnect: "reset" });
          proxy.reset();
          await eventually(() => proxy.open === 0 || undefined, "the end of the bus's connections");
        },
      };
    },
  },
  "whose notifications are lost": {
    kind: "postgres",
    async env({ url }) {
      // PostgreSQL notifies within a database: a listener in another database hears nothing, and
      // gets no error.
      const elsewhere = await createTestDatabase();
      onTestFinished(() => elsewhere.drop());
      expect(elsewhere.url).not.toBe(url);
      return { env: { DATABASE_DIRECT_URL: elsewhere.url } };
    },
  },
  "that cannot reach NATS": {
    kind: "nats",
    async env() {
      const nats = await startNats([], { isStarted: false });
      return { env: { PINION_BUS: "nats", PINION_NATS_URL: nats.url } };
    },
  },
};

describe.each(Object.entries(deadFromTheStart))("two replicas %s", (_, { kind, env }) => {
  const database = useDatabase();

  test.skipIf(missing(kind))(
    "a run that one of them records for a device of the other is pushed within the sweep",
    async () => {
      const sweepMs = 400;
      const dead = await env(database);
      const settings = { ...dead.env, PINION_SWEEP_INTERVAL_MS: String(sweepMs) };
      const [called, holder] = await Promise.all([
        startTestReplica(database.url, settings),
        startTestReplica(database.url, settings),
      ]);
      await dead.drop?.();
      const device = await enrolDevice(called.clients);
      const stream = await connect(holder.url, device);
      const pushedLateMs: number[] = [];
      for (let index = 0; index < 5; index += 1) {
        const { id } = await startWork(called.clients, device);
        const startedAt = performance.now();
        const assignment = await takeOn(stream);
        pushedLateMs.push(performance.now() - startedAt);
        expect(assignment.workId).toBe(id);
        await stream.complete(assignment);
        await untilStatus(called.clients, { workId: id }, RunStatus.COMPLETED);
      }
      expect(Math.max(...pushedLateMs)).toBeLessThan(sweepMs + busyMs);
      // If a replica had heard of the other, no run would have waited.
      expect(Math.max(...pushedLateMs)).toBeGreaterThan(sweepMs / 10);
    },
  );
});

describe.skipIf(missing("nats"))("a replica and NATS", () => {
  const database = useDatabase({ per: "file" });
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "pinion-nats-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test("a replica starts without NATS, finds work by its sweep, and joins when NATS is there", async () => {
    const nats = await startNats([], { isStarted: false });
    onTestFinished(() => nats.kill());
    const env = { PINION_BUS: "nats", PINION_NATS_URL: nats.url };
    const [sweeping, patient] = await Promise.all([
      startTestReplica(database.url, { ...env, PINION_SWEEP_INTERVAL_MS: "500" }),
      startTestReplica(database.url, { ...env, ...noSweep }),
    ]);
    const device = await enrolDevice(sweeping.clients);
    const stream = await connect(sweeping.url, device);
    const { id } = await startWork(patient.clients, device);
    const assignment = await takeOn(stream);
    expect(assignment.workId).toBe(id);
    await stream.complete(assignment);

    const other = await enrolDevice(sweeping.clients);
    const waiting = await connect(patient.url, other);
    const late = await startWork(sweeping.clients, other);
    await nats.start();
    expect((await waiting.next("assignment")).workId).toBe(late.id);
  });

  test("tokens, passwords in the URL and subjects are what the server asks for; the doctor says when they are not", async () => {
    const byToken = await startNats(["--auth", "a-token"]);
    onTestFinished(() => byToken.kill());
    const env = { PINION_BUS: "nats", PINION_NATS_URL: byToken.url };
    expect(await checkBus({ ...env, PINION_NATS_TOKEN: "a-token" })).toMatchObject([
      { name: "bus", verdict: "good", found: expect.stringContaining("NATS 2.") },
    ]);
    expect(await checkBus({ ...env, PINION_NATS_TOKEN: "another" })).toMatchObject([
      { verdict: "bad", found: expect.stringMatching(/authorization/i) },
    ]);
    await byToken.kill();
    expect(await checkBus({ ...env, PINION_NATS_TOKEN: "a-token" })).toMatchObject([{ verdict: "bad" }]);
    expect(await checkBus({ PINION_BUS: "nats" })).toMatchObject([
      { verdict: "bad", found: expect.stringContaining("PINION_NATS_URL") },
    ]);
    expect(await checkBus({})).toEqual([]);

    const file = join(folder, "users.conf");
    await writeFile(
      file,
      `authorization { users = [ { user: "pinion", password: "p@ss/word",
         permissions: { publish: ["fleet.a.>"], subscribe: ["fleet.a.>"] } } ] }`,
    );
    const byUser = await startNats(["-c", file]);
    onTestFinished(() => byUser.kill());
    const user = {
      PINION_BUS: "nats",
      PINION_NATS_URL: `nats://pinion:p%40ss%2Fword@127.0.0.1:${byUser.port}`,
      PINION_NATS_SUBJECT: "fleet.a",
    };
    const [one, two] = [
      await startTestReplica(database.url, { ...user, ...noSweep }),
      await startTestReplica(database.url, { ...user, ...noSweep }),
    ];
    const device = await enrolDevice(one.clients);
    const stream = await connect(two.url, device);
    const { id } = await startWork(one.clients, device);
    expect((await stream.next("assignment")).workId).toBe(id);
  });
});
