/** Lists on the command line: narrowed by filters, and devices with one label told apart. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { enrolDevice } from "../../support/device.ts";
import { temporaryDirectory } from "../../support/processes.ts";
import { startWork, useReplicas } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

const type = (...args: string[]) =>
  runCommand({ PINION_URL: replicas.here.url, PINION_TOKEN: replicas.here.token }, ...args);
const idsOf = async (...args: string[]) => {
  const ended = await type("runs", "list", "--json", ...args);
  expect(ended.code, ended.err).toBe(0);
  return (JSON.parse(ended.out) as { runs: { id: string }[] }).runs.map(({ id }) => id);
};

test("runs are narrowed by time, label, state and device, each alone and together", async () => {
  const { clients } = replicas.here;
  const [one, other] = [await enrolDevice(clients, "one"), await enrolDevice(clients, "other")];
  await clients.fleet.labelDevice({ deviceId: one.deviceId, add: ["gpu"] });
  const first = await startWork(clients, one);
  const second = await startWork(clients, other);
  expect(await idsOf("--label", "gpu")).toEqual([first.id]);
  expect(await idsOf("--since", "1h")).toEqual([second.id, first.id]);
  expect(await idsOf("--until", "1h")).toEqual([]);
  expect(await idsOf("--since", "1h", "--device", "other", "--status", "pending")).toEqual([second.id]);
  expect(await idsOf("--since", "1h", "--label", "gpu", "--status", "completed")).toEqual([]);
  expect(await type("runs", "list", "--since", "1h", "--until", "2h")).toMatchObject({
    code: 2,
    err: expect.stringContaining("until: must be after since"),
  });
  expect((await type("runs", "list", "--until", "1h")).err).toContain("no run is like that");
  expect((await type("devices", "list", "--status", "never", "--label", "gpu")).out).toMatch(/^one /m);
  expect((await type("devices", "list", "--status", "online")).err).toContain("no device is like that");
  const matching = await type("devices", "list", "--json", "--select", '"gpu" in labels && os != ""');
  expect(
    (JSON.parse(matching.out) as { devices: { label: string }[] }).devices.map(({ label }) => label),
  ).toEqual(["one"]);
  expect(await type("devices", "list", "--select", "labels ==")).toMatchObject({
    code: 2,
    err: expect.stringContaining("selector: "),
  });
});

test("a second device of the same label is told at its enrolment, and lists tell both apart", async () => {
  const { clients, url } = replicas.here;
  const first = await enrolDevice(clients, "twin");
  const { joinCode } = await clients.fleet.createJoinCode({});
  const home = await temporaryDirectory();
  const ended = await runCommand(
    { HOME: home },
    ...["device", "enroll", "--url", url, "--join-code", joinCode, "--label", "twin"],
    ...["--state-dir", join(home, "state")],
  );
  expect(ended).toMatchObject({
    code: 0,
    err: expect.stringContaining('another device is called "twin" too'),
  });
  const listed = (await type("devices", "list")).out;
  expect(listed).toContain(`twin (${first.deviceId.slice(-8)})`);
  await startWork(clients, first);
  expect((await type("runs", "list")).out).toContain(`twin (${first.deviceId.slice(-8)})`);
});
