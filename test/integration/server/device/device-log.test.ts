/** The end of a daemon's log, fetched from the device through any replica. */
import { expect, test } from "vitest";
import { runCommand } from "../../../support/command.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here", "there");

const type = (...args: string[]) =>
  runCommand({ PINION_URL: replicas.here.url, PINION_TOKEN: replicas.here.token }, ...args);

test.each(["here", "there"] as const)(
  "a device on the replica %s answers, whole, also with a long text",
  async (place) => {
    const identity = await enrolDevice(replicas.here.clients, `of-${place}`);
    const device = await connect(replicas[place].url, identity, { capabilities: ["log"] });
    const text = Array.from(
      { length: 300 },
      (_, line) => `${line}: größer als eine Nachricht, ${"x".repeat(70)}`,
    ).join("\n");
    const asked = type("devices", "log", `of-${place}`, "--lines", "300", "--json");
    const { requestId, linesMax } = await device.next("logRequest");
    expect(linesMax).toBe(300);
    device.send({ case: "logExcerpt", value: { requestId: crypto.randomUUID(), text: "not asked for" } });
    device.send({ case: "logExcerpt", value: { requestId, text, isTruncated: true } });
    const ended = await asked;
    expect(ended.code, ended.err).toBe(0);
    expect(JSON.parse(ended.out)).toEqual({ text, is_truncated: true });
  },
);

test("a device that is away, or whose daemon has no log to give, is told at once", async () => {
  const identity = await enrolDevice(replicas.here.clients, "older");
  expect(await type("devices", "log", "older")).toMatchObject({
    code: 6,
    err: expect.stringContaining("is not connected"),
  });
  await connect(replicas.here.url, identity);
  expect(await type("devices", "log", "older")).toMatchObject({
    code: 6,
    err: expect.stringContaining("gives no log; upgrade the daemon"),
  });
});
