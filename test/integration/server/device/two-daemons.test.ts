/**
 * Two daemons with one identity, in separate state directories, so that no lock keeps them apart.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectDevice, type DeviceEvent, Os, silentLogger } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice } from "../../../support/device.ts";
import { eventually } from "../../../support/processes.ts";
import { startTestReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });

test("the newer session wins; the replaced daemon says why, comes back ever more slowly, and they do not fight for ever", async () => {
  const { url, clients } = await startTestReplica(database.url);
  const identity = await enrolDevice(clients);
  const start = () => {
    const events: DeviceEvent[] = [];
    const said: string[] = [];
    const stateDir = mkdtempSync(join(tmpdir(), "pinion-twin-"));
    const device = connectDevice({
      url,
      token: identity.token,
      installId: identity.installId,
      os: Os.LINUX,
      agentKinds: ["test"],
      stateDir,
      onAssignment: async () => ({ outcome: "completed" }),
      onEvent: (event) => events.push(event),
      logger: { ...silentLogger, warn: (_fields, message) => said.push(message) },
    });
    onTestFinished(async () => {
      await device.close({ graceMs: 0, flushMs: 0 }).catch(() => {});
      rmSync(stateDir, { recursive: true, force: true });
    });
    const waits = () => events.flatMap((event) => (event.type === "retrying" ? [event.inMs] : []));
    return { device, events, said, waits };
  };
  const [first, second] = [start(), start()];
  const replaced = () =>
    [...first.events, ...second.events].filter(
      (event) => event.type === "drained" && event.reason === "replaced",
    ).length;
  await eventually(() => replaced() >= 4 || undefined, "four replacements");
  for (const twin of [first, second]) {
    if (twin.waits().length === 0) continue;
    expect(twin.said.join("\n")).toContain("another daemon has connected as this device");
  }
  // The mean of the waits doubles with each replacement; 4 of them cannot have come within the
  // first moments.
  const waits = [...first.waits(), ...second.waits()];
  expect(Math.max(...waits)).toBeGreaterThan(200);
  // Each session was newer than the replaced session, and the number of sessions is small.
  const { device } = await clients.fleet.getDevice({ deviceId: identity.deviceId });
  expect(Number(device!.sessionEpoch)).toBeGreaterThanOrEqual(4);
  expect(Number(device!.sessionEpoch)).toBeLessThan(30);
});
