/** What a hello costs: a device that comes back with nothing new needs one transaction. */
import { randomUUID } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import pg from "pg";
import { expect, test, vi } from "vitest";
import { HeldAttemptState, HeldVerdict, HelloSchema, Os } from "#gen/pinion/v1/device_pb.js";
import { createOpenings, open } from "../../../../src/server/device/session/opening.ts";
import { openDatabase } from "../../../../src/store/pg/database.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { useDatabase } from "../../../support/database.ts";
import { type DeviceName, seedDevice, seedRunning } from "../../../support/rows.ts";
import { policy } from "../../../support/surroundings.ts";

const t = useDatabase();

async function helloOf(device: DeviceName, hello: MessageInitShape<typeof HelloSchema> = {}) {
  const row = await t.db
    .selectFrom("device")
    .select("install_id")
    .where("id", "=", device.deviceId)
    .executeTakeFirstOrThrow();
  return create(HelloSchema, {
    ...{ installId: row.install_id, os: Os.ANDROID, appVersion: "1.2.3", maxConcurrency: 1 },
    ...hello,
  });
}

/** Opens a session, and returns the statements. */
async function openNoted(device: DeviceName, hello: MessageInitShape<typeof HelloSchema> = {}) {
  const asked = await helloOf(device, hello);
  return noted((deps) => open(deps, { ...device, tokenId: "", isWorker: false }, asked));
}

/** Opens sessions, and returns the statements. */
async function noted<T>(opens: (deps: Parameters<typeof open>[0]) => Promise<T>) {
  // Also of statements that are sent together.
  const submit = vi.spyOn(pg.Query.prototype as unknown as { submit(connection: object): void }, "submit");
  const database = openDatabase({ url: t.url, poolMax: 2 });
  try {
    const log = createLogger({ name: "test", level: "silent" });
    const deps = { db: database.db, log, replicaId: "replica-1", policy, ttlMs: 60_000 };
    const opening = await opens(deps);
    const texts = submit.mock.contexts.map((query) => (query as unknown as { text: string }).text);
    return { opening, begins: texts.filter((text) => text.startsWith("start transaction")).length, texts };
  } finally {
    await database.close();
    submit.mockRestore();
  }
}

const heldOf = ({ runId, attemptToken }: { runId: string; attemptToken: string }) => {
  return { workId: runId, attemptToken, state: HeldAttemptState.RUNNING };
};

test("a device that comes back with nothing new costs one transaction; one with news costs more", async () => {
  const device = await seedDevice(t.db);
  const first = await openNoted(device);
  expect(first.begins).toBeGreaterThan(1);
  const again = await openNoted(device);
  expect(again.opening.epoch).toBe(2);
  // Begin, the device, its presence, its attempts, commit; nothing outside.
  expect(again.texts).toHaveLength(5);
  expect(again.begins).toBe(1);
  const newer = await openNoted(device, { appVersion: "1.2.4" });
  expect(newer.begins).toBeGreaterThan(1);
  expect(newer.opening.epoch).toBe(3);
});

test("a held attempt goes on at the cost of one more statement; an unknown one asks whether the org is here", async () => {
  const { device, run } = await seedRunning(t.db);
  await openNoted(device, { held: [heldOf(run)] });
  const back = await openNoted(device, { held: [heldOf(run)] });
  expect(back.opening.verdicts).toEqual([HeldVerdict.CONTINUE]);
  expect(back.texts).toHaveLength(6);
  const unknown = heldOf({ ...run, attemptToken: randomUUID() });
  const both = await openNoted(device, { held: [heldOf(run), unknown] });
  expect(both.opening.verdicts).toEqual([HeldVerdict.CONTINUE, HeldVerdict.ABORT]);
  expect(both.texts.some((text) => text.includes("org_move"))).toBe(true);
});

const together = (greeted: { device: DeviceName; hello: Awaited<ReturnType<typeof helloOf>> }[]) =>
  noted((deps) => {
    const begin = createOpenings({ ...deps, waitingMax: 1_000 });
    return Promise.allSettled(
      greeted.map(({ device, hello }) =>
        begin({ ...device, tokenId: "", isWorker: false, state: "opening" }, hello),
      ),
    );
  });

test("devices that come back together share a transaction, each with its own attempts", async () => {
  const seeded = [];
  for (let index = 0; index < 20; index++) seeded.push(await seedRunning(t.db));
  const greeted = [];
  for (const { device, run } of seeded) {
    const hello = { held: [heldOf(run)] };
    await openNoted(device, hello);
    greeted.push({ device, hello: await helloOf(device, hello) });
  }
  const { opening, begins, texts } = await together(greeted);
  // Begin, the devices, their presence, their attempts, those that go on, commit.
  expect(texts).toHaveLength(6);
  expect(begins).toBe(1);
  const openings = opening.map((one) => (one.status === "fulfilled" ? one.value : undefined));
  expect(openings.map((one) => one?.deviceId)).toEqual(seeded.map(({ device }) => device.deviceId));
  expect(openings.map((one) => one?.continuing[0]?.attemptToken)).toEqual(
    seeded.map(({ run }) => run.attemptToken),
  );
  expect(openings.every((one) => one?.verdicts[0] === HeldVerdict.CONTINUE)).toBe(true);
  for (const { sessionId, deviceId } of openings.filter((one) => one !== undefined)) {
    const row = await t.db.selectFrom("run").selectAll().where("device_id", "=", deviceId).executeTakeFirst();
    expect(row).toMatchObject({ claimed_session: sessionId, status: "running" });
  }
});

test("among devices that come back together, each is answered as it would be alone", async () => {
  const [same, twice, newer, foreign, deleted] = await Promise.all(
    Array.from({ length: 5 }, () => seedDevice(t.db)),
  );
  const { device: lost, run } = await seedRunning(t.db);
  for (const device of [same!, twice!, newer!, foreign!, lost]) await openNoted(device);
  const deletedHello = await helloOf(deleted!);
  await t.db.deleteFrom("device").where("id", "=", deleted!.deviceId).execute();
  const { opening } = await together([
    { device: same!, hello: await helloOf(same!) },
    { device: twice!, hello: await helloOf(twice!) },
    { device: twice!, hello: await helloOf(twice!) },
    { device: newer!, hello: await helloOf(newer!, { appVersion: "2.0.0" }) },
    { device: foreign!, hello: await helloOf(foreign!, { installId: randomUUID() }) },
    { device: deleted!, hello: deletedHello },
    { device: lost, hello: await helloOf(lost) },
  ]);
  expect(opening).toMatchObject([
    { value: { deviceId: same!.deviceId, epoch: 2, settled: [] } },
    { value: { deviceId: twice!.deviceId, epoch: 2 } },
    { value: { deviceId: twice!.deviceId, epoch: 3 } },
    { value: { deviceId: newer!.deviceId, epoch: 2 } },
    { reason: { reason: "permission_denied" } },
    { reason: { reason: "unauthenticated" } },
    { value: { deviceId: lost.deviceId } },
  ]);
  const ended = await t.db.selectFrom("run").selectAll().where("id", "=", run.runId).executeTakeFirst();
  expect(ended?.attempt_token ?? null).not.toBe(run.attemptToken);
});

test("a device whose session another transaction holds keeps no other device waiting", async () => {
  const [held, free] = await Promise.all([seedDevice(t.db), seedDevice(t.db)]);
  for (const device of [held, free]) await openNoted(device);
  const hellos = await Promise.all([helloOf(held), helloOf(free)]);
  const database = openDatabase({ url: t.url, poolMax: 4 });
  try {
    const log = createLogger({ name: "test", level: "silent" });
    const begin = createOpenings({
      ...{ db: database.db, log, replicaId: "replica-1", policy, ttlMs: 60_000, waitingMax: 10 },
    });
    const sessionOf = (device: DeviceName) => {
      return { ...device, tokenId: "", isWorker: false, state: "opening" } as const;
    };
    let waiting: Promise<unknown> | undefined;
    await t.db.transaction().execute(async (tx) => {
      await tx
        .selectFrom("presence")
        .select("epoch")
        .where("device_id", "=", held.deviceId)
        .forUpdate()
        .execute();
      waiting = begin(sessionOf(held), hellos[0]);
      expect(await begin(sessionOf(free), hellos[1])).toMatchObject({ epoch: 2 });
    });
    expect(await waiting).toMatchObject({ epoch: 2 });
  } finally {
    await database.close();
  }
});
