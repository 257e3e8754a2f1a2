/** What a hello costs: a device that comes back with nothing new needs one transaction. */
import { randomUUID } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import pg from "pg";
import { expect, test, vi } from "vitest";
import { HeldAttemptState, HeldVerdict, HelloSchema, Os } from "#gen/pinion/v1/device_pb.js";
import { createLogger } from "../../../src/log.ts";
import { open } from "../../../src/server/device/opening.ts";
import { openDatabase } from "../../../src/store/pg/database.ts";
import { useDatabase } from "../../support/database.ts";
import { type DeviceName, policy, seedDevice, seedRunning } from "../../support/rows.ts";

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

/** Opens a session, and returns the first words of the statements. */
async function openNoted(device: DeviceName, hello: MessageInitShape<typeof HelloSchema> = {}) {
  const asked = await helloOf(device, hello);
  const query = vi.spyOn(pg.Client.prototype, "query");
  // Connections that are opened from here on call the spy.
  const database = openDatabase({ url: t.url, poolMax: 2 });
  try {
    const log = createLogger({ name: "test", level: "silent" });
    const deps = { db: database.db, log, replicaId: "replica-1", policy, ttlMs: 60_000 };
    const opening = await open(deps, { ...device, tokenId: "", isWorker: false }, asked);
    const texts = query.mock.calls.map(([asked]) =>
      String((asked as unknown as { text?: string }).text ?? asked),
    );
    return { opening, begins: texts.filter((text) => text.startsWith("start transaction")).length, texts };
  } finally {
    await database.close();
    query.mockRestore();
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
