/** `pinion agents`, `pinion platforms` and `pinion secrets` against a real replica. */
import { writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readKeys, secretKeys } from "../../../src/cli/secret-keys.ts";
import { createKeyring, newKey } from "../../../src/secrets.ts";
import * as edits from "../../../src/store/agents/platform-edits.ts";
import { ensureBootstrap } from "../../../src/store/people/orgs/orgs.ts";
import { openDatabase } from "../../../src/store/pg/database.ts";
import { startEmbedded } from "../../../src/store/pg/embedded/cluster.ts";
import { migrate } from "../../../src/store/pg/migrate.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { temporaryDirectory } from "../../support/processes.ts";
import { startTestReplica } from "../../support/server.ts";
import { startTelegram } from "../../support/telegram.ts";

const database = useDatabase();
const telegram = await startTelegram({ isOpen: true });
afterAll(() => telegram[Symbol.asyncDispose]());
const asTelegram = ["--kind", "telegram", "--config", `api_url=${telegram.url}`];
const secret = "12345:hunter2";

async function start(env: Record<string, string> = {}) {
  const data = await mkdtemp(join(tmpdir(), "pinion-"));
  const replica = await startTestReplica(database.url, { PINION_DESTINATION_NETWORKS: "127.0.0.1", ...env });
  const pinion = (...args: string[]) =>
    runCommand(
      { PINION_URL: replica.url, PINION_TOKEN: replica.token, PINION_DATA: data, BOT: secret },
      ...args,
    );
  return { pinion, data, url: replica.url };
}

test("an agent is made, shown, changed and deleted from the command line", async () => {
  const { pinion, data } = await start();
  expect(
    await pinion("agents", "create", "reviewer", "--identity", "You review.", "--tool", "read,grep"),
  ).toMatchObject({
    code: 0,
    out: "reviewer is created\n",
  });
  expect((await pinion("agents", "create", "reviewer")).out).toContain("was there already, at version 1");
  expect((await pinion("agents", "list")).out).toMatch(/pinion-default .*yes[\s\S]*reviewer/);
  expect((await pinion("agents", "update", "reviewer", "--model", "opus", "--host", "")).out).toBe(
    "reviewer: changed egress_config, model; version 2\n",
  );
  const shown = (await pinion("agents", "get", "reviewer")).out;
  expect(shown).toMatch(/may connect to +no host/);
  expect(shown).toMatch(/needs no asking +read, grep/);
  const file = join(data, "agent.json");
  writeFileSync(file, (await pinion("agents", "get", "reviewer", "--json")).out);
  expect((await pinion("agents", "update", "reviewer", "--settings", file)).out).toBe(
    "reviewer: nothing to change\n",
  );
  expect(await pinion("agents", "update", "reviewer")).toMatchObject({ code: 2 });
  expect((await pinion("agents", "update", "reviewer", "--default", "--dry-run")).out).toContain(
    "would change is_default",
  );
  expect(await pinion("agents", "delete", "pinion-default")).toMatchObject({ code: 6 });
  expect((await pinion("agents", "delete", "reviewer")).out).toBe("reviewer is deleted\n");
  expect(await pinion("agents", "get", "reviewer")).toMatchObject({ code: 5 });
});

test("a platform is made, listed, stopped, started and deleted, and its secret appears nowhere", async () => {
  const { pinion } = await start({ PINION_SECRET_KEYS: newKey() });
  const upsert = (...more: string[]) =>
    pinion("platforms", "upsert", "chat", "--agent", "pinion-default", ...asTelegram, ...more);
  const ended = [
    await upsert("--secret-env", "bot_token=BOT", "--config", "chat_id=7", "--dry-run"),
    await upsert("--secret-env", "bot_token=BOT", "--config", "chat_id=7"),
    await upsert("--secret-env", "bot_token=BOT", "--config", "chat_id=7"),
    await upsert("--secret-keep", "bot_token"),
    await pinion("platforms", "list"),
    await pinion("platforms", "list", "--json"),
    await pinion("platforms", "stop", "chat"),
    await pinion("platforms", "start", "chat"),
    await pinion("events", "--limit", "50"),
    await pinion("events", "--json"),
    await pinion("platforms", "delete", "chat"),
  ];
  expect(ended.map(({ code }) => code)).toEqual(Array(ended.length).fill(0));
  expect(ended.slice(0, 4).map(({ out }) => out)).toEqual([
    "chat: would be created\n",
    "chat: created; running\n",
    "chat: noop; running\n",
    "chat: updated (config.chat_id), restarted; running\n",
  ]);
  expect(ended[4]!.out).toMatch(/chat +pinion-default +telegram +running +2/);
  expect(JSON.parse(ended[5]!.out).platforms[0].secrets).toEqual([{ name: "bot_token", reference: "" }]);
  expect(JSON.stringify(ended)).not.toContain("hunter2");
  expect(await upsert()).toMatchObject({ code: 2, err: expect.stringContaining("secrets.bot_token") });
  expect(await upsert("--secret-env", "bot_token=LOST")).toMatchObject({
    code: 2,
    err: expect.stringContaining("not set: LOST"),
  });
});

test("a reference that the server lacks fails the start, and the list says why", async () => {
  const { pinion } = await start({ PINION_SECRET_TEAM_BOT: secret });
  const upsert = (name: string) =>
    pinion(
      "platforms",
      "upsert",
      "chat",
      "--agent",
      "pinion-default",
      ...asTelegram,
      "--secret-ref",
      `bot_token=${name}`,
    );
  expect(await upsert("LOST")).toMatchObject({ code: 6, err: expect.stringContaining("PINION_SECRET_LOST") });
  expect((await pinion("platforms", "list")).out).toMatch(/failed.*PINION_SECRET_LOST/);
  expect((await upsert("TEAM_BOT")).out).toBe("chat: updated (secrets.bot_token); running\n");
});

test("a server without a key refuses to store a secret, and says what to set", async () => {
  const { pinion } = await start();
  const { code, err } = await pinion(
    ...["platforms", "upsert", "chat", "--agent", "pinion-default", ...asTelegram],
    ...["--secret-env", "bot_token=BOT"],
  );
  expect({ code, err }).toMatchObject({ code: 6, err: expect.stringContaining("PINION_SECRET_KEYS") });
  expect((await pinion("platforms", "list", "--json")).out).toContain('"platforms": []');
});

test("secrets rotate seals all under the first key, and a server with that key alone opens them", async () => {
  const [old, young] = [newKey(), newKey()];
  const before = await start({ PINION_SECRET_KEYS: old });
  const upsert = ["platforms", "upsert", "chat", "--agent", "pinion-default", ...asTelegram];
  await before.pinion(...upsert, "--secret-env", "bot_token=BOT");
  await before.pinion("watchers", "create", "sum", "--prompt", "sum it up");
  const hook = JSON.parse(
    (await before.pinion("hooks", "create", "sum", "--kind", "bearer", "--json")).out,
  ) as { secret: string; url: string };
  // A directory without a key file; the default directory may hold a key file from use of the
  // README.
  const data = await temporaryDirectory();
  const rotate = (keys: string) =>
    runCommand(
      { PINION_SECRET_KEYS: keys },
      ...["secrets", "rotate", "--database-url", database.url, "--data", data],
    );
  expect(await rotate(young)).toMatchObject({
    code: 1,
    err: expect.stringContaining("local/chat/bot_token"),
  });
  const { code, out } = await rotate(`${young},${old}`);
  expect({ code, out }).toEqual({
    code: 0,
    out: `2 secrets are sealed anew with the key ${young.split(":")[0]}\n`,
  });
  const after = await start({ PINION_SECRET_KEYS: young });
  await after.pinion("platforms", "stop", "chat");
  expect((await after.pinion("platforms", "start", "chat")).out).toBe("chat is running\n");
  const delivered = await fetch(new URL(new URL(hook.url, after.url).pathname, after.url), {
    method: "POST",
    headers: { authorization: `Bearer ${hook.secret}` },
    body: "{}",
  });
  expect(delivered.status).toBe(202);
  expect(await rotate("")).toMatchObject({ code: 2 });
});

test("secrets rotate of a data directory makes a new key, drops the old one, and waits for no running server", async () => {
  const data = await mkdtemp(join(tmpdir(), "pinion-"));
  const rotate = () => runCommand({ PINION_DATA: data }, "secrets", "rotate");
  expect(await rotate()).toMatchObject({ code: 2, err: expect.stringContaining("there are no keys") });
  const before = secretKeys(data, {}, { isCreated: true });
  const embedded = await startEmbedded({ dataDir: data });
  try {
    await migrate(embedded.url);
    const { db, close } = openDatabase({ url: embedded.url, poolMax: 2 });
    await ensureBootstrap(db);
    await edits.upsert(db, {
      orgId: "local",
      actor: "pinion",
      stableId: "chat",
      expectedVersion: 0,
      waitedEpoch: undefined,
      isDryRun: false,
      keyring: createKeyring(before),
      values: {
        agentId: "pinion-default",
        kind: "telegram",
        config: {},
        secrets: { bot_token: { value: secret } },
      },
    });
    await close();
    expect(await rotate()).toMatchObject({ code: 6, err: expect.stringContaining("Another Pinion") });
    expect(readKeys(data)).toBe(before);
  } finally {
    await embedded.stop();
  }
  expect((await rotate()).out).toMatch(/^1 secret is sealed anew/);
  const after = readKeys(data)!;
  expect(after).not.toContain(before);
  expect(after.split("\n")).toHaveLength(1);
  // The second rotation opens the secrets sealed by the first rotation.
  expect((await rotate()).out).toMatch(/^1 secret is sealed anew/);
  expect(readKeys(data)).not.toBe(after);
}, 60_000);
