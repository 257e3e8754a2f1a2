/** Two people and a device, from the command line: what each verb of a grant lets the second do. */
import { createClients } from "@pinion/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { DeviceStream, enrolDevice, type Identity } from "../../support/device.ts";
import { startWork, takeOn, useReplicas } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

type Person = (...args: string[]) => ReturnType<typeof runCommand>;

let ada: Person;
let bea: Person;
let stream: DeviceStream;
let beats: NodeJS.Timeout;
const ids = { device: "", watcher: "", run: "" };
const secretWord = "the-answer-is-0815";

function as(token: string): Person {
  const env = { PINION_URL: replicas.here.url, PINION_TOKEN: token, PINION_DATA: "/nonexistent" };
  return (...args) => runCommand(env, ...args);
}

/**
 * Ada's device, a watcher on it, and an ended run that said the secret word. Bea is a member too.
 */
beforeAll(async () => {
  const owner = as(replicas.here.token);
  const add = async (email: string) => {
    const added = await owner("orgs", "add-member", email, "--scope", "read,write");
    expect(added.code).toBe(0);
    return added.out.trim();
  };
  const token = await add("ada@example.org");
  ada = as(token);
  bea = as(await add("bea@example.org"));
  const clients = createClients({ url: replicas.here.url, token });
  const device = await enrolDevice(clients, "adas-mac");
  ids.device = device.deviceId;
  stream = await connectOf(device);
  beats = setInterval(() => stream.send({ case: "heartbeat", value: { sequence: 1n } }), 1_000);
  const run = await startWork(clients, device, { name: "Adas digest", maxAttempts: 1 });
  await stream.complete(await takeOn(stream), secretWord);
  Object.assign(ids, { watcher: run.watcherId, run: run.id });
  clients.close();
});

afterAll(() => {
  clearInterval(beats);
  stream?.cancel();
});

/** Kept for the file: a test's own streams end with the test. */
async function connectOf(device: Identity): Promise<DeviceStream> {
  const opened = new DeviceStream(replicas.here.url, device.token);
  opened.hello(device, { maxConcurrency: 8 });
  await opened.next("welcome");
  return opened;
}

/** Each verb's deeds, as Bea types them. */
const deeds: Record<"use" | "manage" | "read", [what: string, args: () => string[]][]> = {
  use: [
    [
      "pin a watcher",
      () => [
        "watchers",
        "create",
        "beas",
        "--prompt",
        "p",
        "--device",
        ids.device,
        "--schedule",
        "0 9 * * *",
      ],
    ],
    ["edit a watcher", () => ["watchers", "update", ids.watcher, "--prompt", "another"]],
    ["pause a watcher", () => ["watchers", "pause", ids.watcher]],
    ["resume a watcher", () => ["watchers", "resume", ids.watcher]],
    ["retry a run", () => ["runs", "retry", ids.run]],
    ["trigger a watcher", () => ["watchers", "trigger", ids.watcher]],
  ],
  manage: [
    ["rename the device", () => ["devices", "rename", ids.device, "renamed"]],
    ["label the device", () => ["devices", "label", ids.device, "gpu"]],
    ["disconnect the device", () => ["devices", "disconnect", ids.device]],
  ],
  read: [
    ["watch a run", () => ["runs", "watch", ids.run]],
    ["read a transcript", () => ["runs", "transcript", ids.run]],
  ],
};
const verbs = ["use", "manage", "read"] as const;

async function outcomesOf(verb: (typeof verbs)[number]): Promise<[string, string][]> {
  const outcomes: [string, string][] = [];
  for (const [what, args] of deeds[verb]) {
    const { code, err } = await bea(...args());
    outcomes.push([what, code === 0 ? "done" : code === 4 ? "refused" : `${code}: ${err}`]);
  }
  return outcomes;
}

const all = (verb: (typeof verbs)[number], outcome: string) => deeds[verb].map(([what]) => [what, outcome]);
const shown = async () => {
  const { out, err } = await bea("runs", "get", ids.run);
  const windows = (await bea("windows", "list", ids.watcher)).out;
  return { isShown: [out.includes(secretWord), windows.includes(secretWord)], err };
};

test("without a grant every deed on another's device is refused, and what its runs said is not shown", async () => {
  for (const verb of verbs) expect(await outcomesOf(verb)).toEqual(all(verb, "refused"));
  const refused = await bea("watchers", "trigger", ids.watcher);
  expect(refused.err).toContain("pinion devices grant");
  expect(await shown()).toMatchObject({
    isShown: [false, false],
    err: expect.stringContaining(`pinion devices grant ${ids.device} --to <you> --read`),
  });
  expect((await bea("devices", "grant", ids.device, "--to", "bea@example.org", "--use")).code).toBe(4);
  expect((await bea("devices", "delete", ids.device)).code).toBe(4);
});

test.each(verbs)(
  "a grant to %s lets exactly that be done, and is gone when it is taken back",
  async (verb) => {
    const others = verbs.filter((other) => other !== verb);
    const granted = await ada("devices", "grant", ids.device, "--to", "bea@example.org", `--${verb}`);
    expect(granted).toMatchObject({
      code: 0,
      out: expect.stringMatching(new RegExp(`^bea@example.org may ${verb} `)),
    });
    expect((await ada("devices", "grants", ids.device)).out).toMatch(new RegExp(`bea@example.org +${verb}`));
    for (const other of others) expect(await outcomesOf(other)).toEqual(all(other, "refused"));
    expect((await shown()).isShown).toEqual([verb === "read", verb === "read"]);
    expect(await outcomesOf(verb)).toEqual(all(verb, "done"));
    const revoked = await ada("devices", "revoke", ids.device, "--to", "bea@example.org");
    expect(revoked).toMatchObject({ code: 0, out: expect.stringContaining(`may not ${verb}`) });
    expect(await outcomesOf(verb)).toEqual(all(verb, "refused"));
    expect((await ada("devices", "grants", ids.device)).err).toContain("no grants");
  },
);
