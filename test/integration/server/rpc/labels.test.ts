/**
 * Labels of devices: given by people, or reported by devices; and the permissions to set labels.
 */
import { Code } from "@connectrpc/connect";
import { beforeAll, expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice, type Identity } from "../../../support/device.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one");
const fleet = () => replicas.one.clients.fleet;
let device: Identity;

beforeAll(async () => {
  device = await enrolDevice(replicas.one.clients, "mac-7");
});

test("labels are added and removed, each change an event, and repeats change nothing", async () => {
  const { deviceId } = device;
  const label = (add: string[], remove: string[] = []) => fleet().labelDevice({ deviceId, add, remove });
  expect((await label(["gpu", "team=web", "gpu"])).device!.labels).toEqual(["gpu", "team=web"]);
  expect((await label(["gpu"])).device!.labels).toEqual(["gpu", "team=web"]);
  expect((await label([], ["team=web", "never"])).device!.labels).toEqual(["gpu"]);
  const { events } = await replicas.one.clients.events.listEvents({ kinds: ["device.updated"] });
  expect(events.map(({ data }) => data?.changes)).toEqual([
    { labels: { from: ["gpu", "team=web"], to: ["gpu"] } },
    { labels: { from: [], to: ["gpu", "team=web"] } },
  ]);
  await label([], ["gpu"]);
});

test("people who label at once lose nobody's labels", async () => {
  const names = Array.from({ length: 12 }, (_, index) => `many-${index}`);
  await Promise.all(names.map((name) => fleet().labelDevice({ deviceId: device.deviceId, add: [name] })));
  const { device: after } = await fleet().getDevice({ deviceId: device.deviceId });
  expect(after!.labels).toEqual(names.sort());
  await fleet().labelDevice({ deviceId: device.deviceId, remove: names });
});

test.each([
  ["what the device reports", { add: ["has:codex"] }, Code.InvalidArgument, /device itself reports/],
  ["what is no label", { add: ["Big GPU"] }, Code.InvalidArgument, /1 to 63 of a-z/],
  ["the same twice", { add: ["a"], remove: ["a"] }, Code.InvalidArgument, /both added and removed/],
  [
    "too many",
    { add: Array.from({ length: 64 }, (_, index) => `l${index}`) },
    Code.FailedPrecondition,
    /would have 65 labels, and may have 64/,
  ],
])("%s is refused, and nothing changes", async (_what, change, code, words) => {
  const { deviceId } = device;
  await fleet().labelDevice({ deviceId, add: ["kept"] });
  const asked = fleet().labelDevice({ deviceId, ...change });
  await expect(asked).rejects.toMatchObject({ code, message: expect.stringMatching(words) });
  expect((await fleet().getDevice({ deviceId })).device!.labels).toEqual(["kept"]);
});

test("a device reports its executors, workspaces and architecture, and is found by these and by labels of people", async () => {
  const { deviceId } = device;
  await connect(replicas.one.url, device, {
    agentKinds: ["claude-code", "codex"],
    executors: [{ kind: "codex", type: "codex", problem: "not installed" }],
    workspaces: [{ name: "web" }],
    machine: { machineHash: "m", bootHash: "b", hostName: "mac", arch: "arm64" },
  });
  await fleet().labelDevice({ deviceId, add: ["gpu"] });
  const { device: after } = await fleet().getDevice({ deviceId });
  expect(after).toMatchObject({ arch: "arm64", reportedLabels: ["has:claude-code", "workspace:web"] });
  const found = async (...labels: string[]) => (await fleet().listDevices({ labels })).devices.length;
  expect(await found("gpu", "has:claude-code", "workspace:web")).toBe(1);
  expect(await found("gpu", "has:codex")).toBe(0);
  expect(await found("gpu", "workspace:other")).toBe(0);
  expect(await found("gp")).toBe(0);
});
