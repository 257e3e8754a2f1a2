/** When ends of sessions are written: at once, also during a write. */
import { expect, test } from "vitest";
import { startPresenceWriter } from "../../../../src/server/device/hub/presence-writer.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { useDatabase } from "../../../support/database.ts";
import { currentSession, openDevice, seedDevice } from "../../../support/rows.ts";

const database = useDatabase();
const noBeats = { beat: async () => {} };

test("sessions that end while others are written do not wait for the next heartbeats", async () => {
  const { db } = database;
  const open = async () => {
    const device = await seedDevice(db);
    await openDevice(db, device);
    return currentSession(db, device);
  };
  const [first, second, third] = [await open(), await open(), await open()];
  const batches: string[][] = [];
  const { promise: isOver, resolve } = Promise.withResolvers<void>();
  const writer = startPresenceWriter({
    ...{ db, log: createLogger({ name: "test", level: "silent" }), works: { run: noBeats, turn: noBeats } },
    // No timer has a part in this.
    ...{ ttlMs: 86_400_000, heartbeatIntervalMs: 86_400_000 },
    onStale: () => {},
    onEnded: () => {},
    async onBroken(broken) {
      batches.push(broken.map(({ sessionId }) => sessionId));
      if (batches.length > 1) return resolve();
      for (const session of [second, third]) writer.end(session, { pushed: new Set() });
    },
  });
  writer.end(first, { pushed: new Set() });
  await isOver;
  expect(batches).toEqual([[first.sessionId], [second.sessionId, third.sessionId]]);
  await writer.close();
});
