/** Names of nothing that can be seen are refused, whatever they name. */
import { expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

const invisible = [" ", "\u200b", "\u2800", "\u202e\u2066", "\u0301", "\u3164", "\u{e0041}", "\ufeff\t"];
const seen = ["日", "🙂", "e\u0301", "a\u200bb", "-"];

test("a name of spaces, invisible characters or lone marks is refused with words, for every kind of thing", async () => {
  const { clients } = replicas.here;
  const device = await enrolDevice(clients);
  const { deviceId } = device;
  for (const name of invisible) {
    const made: [string, () => Promise<unknown>][] = [
      ["spec.name", () => clients.watchers.createWatcher({ spec: { name, prompt: "x", deviceId } })],
      [
        "label",
        () => clients.fleet.updateDevice({ deviceId, label: name, updateMask: { paths: ["label"] } }),
      ],
      ["label", () => enrolDevice(clients, name)],
      ["label", () => clients.tokens.createToken({ label: name, kind: 1, scopes: ["read"] })],
    ];
    for (const [field, make] of made) {
      const error = await make().then(
        () => new Error(`${field} was taken`),
        (refused: Error) => refused,
      );
      expect([JSON.stringify(name), error.message]).toEqual([
        JSON.stringify(name),
        expect.stringContaining(`${field}: has no character that can be seen`),
      ]);
    }
  }
  for (const [index, name] of seen.entries()) {
    await clients.watchers.createWatcher({ slug: `seen-${index}`, spec: { name, prompt: "x", deviceId } });
    await clients.fleet.updateDevice({ deviceId, label: name, updateMask: { paths: ["label"] } });
  }
});

test("a daemon whose label cannot be seen is let in, and keeps its label", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients, "laptop");
  await connect(url, device, { label: "\u200b\u200b" });
  const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
  expect(seen?.label).toBe("laptop");
});
