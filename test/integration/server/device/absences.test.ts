/** When a device was away: remembered at its return, and shown with the device. */
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { expect, test, vi } from "vitest";
import * as devices from "../../../../src/store/people/devices/devices.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

test("an absence beyond the TTL is remembered when the device is back, a short gap is not", async () => {
  const { clients, url } = replicas.here;
  const identity = await enrolDevice(clients, "laptop");
  const { deviceId } = identity;
  const absences = async () => (await clients.fleet.getDevice({ deviceId })).device!.absences;
  const leave = async () => {
    const device = await connect(url, identity);
    device.cancel();
    await vi.waitFor(async () => {
      expect((await clients.fleet.getDevice({ deviceId })).device!.disconnectedAt).toBeDefined();
    });
  };
  await leave();
  await leave();
  expect(await absences()).toEqual([]);
  await sql`update presence set disconnected_at = now() - interval '1 hour', last_beat_at = now() - interval '1 hour'
    where device_id = ${deviceId}`.execute(database.db);
  await leave();
  const [absence, ...others] = await absences();
  expect(others).toEqual([]);
  const lengthMs = timestampDate(absence!.to!).getTime() - timestampDate(absence!.from!).getTime();
  expect(lengthMs).toBeGreaterThanOrEqual(3_600_000);
  expect(lengthMs).toBeLessThan(3_700_000);
});

test("only the latest absences are kept", async () => {
  const { clients } = replicas.here;
  const { deviceId } = await enrolDevice(clients, "often-away");
  const at = (hour: number) => new Date(Date.UTC(2026, 0, 1, hour));
  for (let hour = 0; hour < 23; hour++) {
    await devices.noteAbsences(database.db, 60_000, [{ orgId: "local", deviceId, since: at(hour) }]);
  }
  const { device } = await clients.fleet.getDevice({ deviceId });
  expect(device!.absences.map(({ from }) => timestampDate(from!).getUTCHours())).toEqual(
    Array.from({ length: 20 }, (_, index) => index + 3),
  );
});
