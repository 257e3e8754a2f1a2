/** `pinion apply` and `pinion pull` against a real replica. */
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sql } from "kysely";
import { afterAll, expect, test, vi } from "vitest";
import { PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { desiredOf } from "../../../src/cli/apply/file/desired.ts";
import { type ParsedFile, parseFile } from "../../../src/cli/apply/file/file.ts";
import type { Plan, Step } from "../../../src/cli/apply/plan/steps.ts";
import { applyPlan, planFile } from "../../../src/cli/apply/run.ts";
import { newKey } from "../../../src/secrets.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { enrolDevice } from "../../support/device.ts";
import {
  asSeenWith,
  inNewOrg,
  startTestReplica,
  type TestReplica,
  useReplica,
} from "../../support/server.ts";
import { startTelegram } from "../../support/telegram.ts";
import { addDevice, addTenant } from "../../support/tenants.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../support/worker.ts";

const database = useDatabase({ per: "file" });
/** One key set for all replicas of a service. */
const secretKeys = newKey();
const secret = "123456:a-very-secret-token";

const shared = useReplica(database, {
  PINION_SECRET_KEYS: secretKeys,
  PINION_DESTINATION_NETWORKS: "127.0.0.1",
  // With this URL, agents get Pinion's own MCP server, which no file contains.
  PINION_PUBLIC_URL: "https://pinion.example.org",
});

/** An org of the test's own, which a file describes. */
async function start() {
  return startIn(await inNewOrg(shared()));
}

function startIn<Seen extends TestReplica>(replica: Seen) {
  const directory = mkdtempSync(join(tmpdir(), "pinion-apply-"));
  const file = join(directory, "pinion.toml");
  const env = { PINION_URL: replica.url, PINION_TOKEN: replica.token, HOME: directory, ...variables };
  return {
    replica,
    file,
    env,
    write: (text: string) => writeFileSync(file, text),
    apply: (...args: string[]) => runCommand(env, "apply", "-f", file, ...args),
    pull: (...args: string[]) => runCommand(env, "pull", "-f", file, ...args),
  };
}

const telegram = await startTelegram({ isOpen: true });
afterAll(() => telegram[Symbol.asyncDispose]());

const example = `
[agents.ada]
name = "Ada"
identity = "You are Ada."
guardrails = ["Be kind."]
mcp_servers = [{ name = "docs", url = "$DOCS_MCP" }]

[[agents.ada.platforms]]
id = "ada-telegram"
kind = "telegram"
config = { bot_token = "$BOT", chat_id = "1", api_url = "${telegram.url}" }

[[agents.ada.watchers]]
slug = "digest"
prompt = "Summarise."
schedule = "0 9 * * *"
time_zone = "Europe/Berlin"
timeout = "90m"
`;

const signingSecret = (letter: string) => `whsec_${Buffer.alloc(32, letter).toString("base64")}`;
const variables = {
  BOT: secret,
  DOCS_MCP: `https://mcp.example.org/?key=${secret}`,
  ...{ HOOK_SECRET: signingSecret("a"), OTHER_SECRET: signingSecret("b") },
};

const everything = new Set(["agent", "platform", "watcher"] as const);

/** The parts of an apply, for tests that act in between. */
function parts(replica: TestReplica, text: string, env: Record<string, string> = variables) {
  const parsed: ParsedFile = parseFile(text, { file: "pinion.toml", env });
  const desired = desiredOf(parsed);
  const scope = { only: everything, prune: false, signal: new AbortController().signal };
  return {
    plan: () => planFile(replica.clients, parsed, desired, scope),
    run: (plan: Plan, options: { signal?: AbortSignal; onDone?(step: Step): void } = {}) =>
      applyPlan(replica.clients, parsed, desired, plan, {
        ...scope,
        signal: options.signal ?? scope.signal,
        progress: { onDone: options.onDone ?? (() => {}), onFailed: () => {}, onReplan: () => {} },
      }),
  };
}

const names = (steps: readonly Step[]) => steps.map(({ action, kind, id }) => `${action} ${kind} ${id}`);

test("a variable with text around it is kept as it stands, and the plan says so", async () => {
  const { write, apply, replica } = await start();
  write(`[agents.ada]\nidentity = "use \${BOT} with care"`);
  const { code, err } = await apply("--yes");
  expect(code).toBe(0);
  expect(err).toContain(`kept as it stands: \${BOT} in agents.ada.identity`);
  const { agents } = await replica.clients.agents.listAgents({});
  expect(agents.find(({ id }) => id === "ada")?.settings?.identity).toBe(`use \${BOT} with care`);
});

test("a file is applied to an empty org, and applying it again changes nothing", async () => {
  const { write, apply, replica } = await start();
  write(example);
  const first = await apply("--yes");
  expect(first).toMatchObject({
    code: 0,
    err: expect.stringMatching(/^not secret: .*mcp_servers\[1\]\.url are stored/),
  });
  expect(first.out).toContain("created agent ada");
  expect(first.out).toContain("Done: 3 created");
  const { agents } = await replica.clients.agents.listAgents({});
  const ada = agents.find(({ id }) => id === "ada")!;
  expect(ada.settings!.mcpServers.map(({ name }) => name).sort()).toEqual(["docs", "pinion"]);
  const { watcher } = await replica.clients.watchers.getWatcher({ watcherId: "digest" });
  expect(watcher!.spec).toMatchObject({ agentId: "ada", timeZone: "Europe/Berlin", name: "digest" });

  const again = await apply("--json");
  expect(again.code).toBe(0);
  expect(JSON.parse(again.out).summary).toMatchObject({ create: 0, update: 0, noop: 3, delete: 0 });
  const versions = await replica.clients.agents.getAgent({ agentId: "ada" });
  expect(versions.agent!.version).toBe(ada.version);
});

test("a plan shows what changes field by field, what restarts, and no secret", async () => {
  const { write, apply, env } = await start();
  write(example);
  await apply("--yes");
  write(
    example
      .replace('chat_id = "1"', 'chat_id = "2"')
      .replace("You are Ada.", "You are Ada Lovelace.")
      .replace("90m", "2h"),
  );
  const shown = await runCommand(
    { ...env, BOT: "987:another-secret" },
    "apply",
    "-f",
    `${env.HOME}/pinion.toml`,
    "--dry-run",
  );
  expect(shown.code).toBe(0);
  expect(shown.out).toContain('identity: "You are Ada." → "You are Ada Lovelace."');
  expect(shown.out).toContain('config.chat_id: "1" → "2"');
  expect(shown.out).toContain('config.bot_token: "(hidden)" → "(hidden)"');
  expect(shown.out).toContain('timeout: "1h30m" → "2h"');
  expect(shown.out).toContain("restarts");
  expect(shown.out).toContain("3 to update");
  const asJson = await apply("--dry-run", "--json");
  for (const text of [shown.out, asJson.out]) {
    expect(text).not.toContain(secret);
    expect(text).not.toContain("another-secret");
  }
});

test("a dry run changes nothing, and says by its exit code whether there is something to do", async () => {
  const { write, apply, replica } = await start();
  write(example);
  expect(await apply("--dry-run")).toMatchObject({ code: 0 });
  expect(await apply("--dry-run", "--exit-code")).toMatchObject({ code: 7 });
  expect(await apply("--exit-code")).toMatchObject({ code: 2 });
  expect((await replica.clients.agents.listAgents({})).agents.map(({ id }) => id)).toEqual([
    "pinion-default",
  ]);
  await apply("--yes");
  expect(await apply("--dry-run", "--exit-code")).toMatchObject({ code: 0 });
});

test("without a terminal nothing is done that nobody said yes to", async () => {
  const { write, apply, replica } = await start();
  write(example);
  const ended = await apply();
  expect(ended).toMatchObject({ code: 2 });
  expect(ended.err).toContain("--yes");
  expect((await replica.clients.agents.listAgents({})).agents).toHaveLength(1);
});

test("what the server would turn down is named with its line before anything is changed", async () => {
  const { write, apply, replica } = await start();
  write(`
[agents.ada]
[[agents.ada.platforms]]
id = "ada-slack"
kind = "slack"
config = { bot_token = "$BOT" }
[[agents.ada.platforms]]
id = "ada-fax"
kind = "fax"
[[agents.ada.watchers]]
slug = "digest"
prompt = "Summarise."
device = "nobody's"
`);
  const device = await apply("--yes");
  expect(device).toMatchObject({ code: 2 });
  expect(device.err).toContain(
    'pinion.toml:13: agents.ada.watchers[1].device: no device is called "nobody\'s"',
  );
  const platforms = await apply("--yes", "--only", "agents,platforms");
  expect(platforms).toMatchObject({ code: 2 });
  expect(platforms.err).toContain("a slack platform needs config.signing_secret");
  expect(platforms.err).toMatch(/pinion\.toml:9: agents\.ada\.platforms\[2\]\.kind: /);
  expect((await replica.clients.agents.listAgents({})).agents).toHaveLength(1);
});

test("watchers that the server would turn down are all named before anything is changed", async () => {
  const { write, apply, replica } = await start();
  const { clients } = replica;
  const left = await enrolDevice(clients, "left");
  // Owned by a user who is no member any more.
  await sql`with gone as (insert into "user" (name, email) values ('gone', 'gone@x.example') returning id)
    update device set owner_id = gone.id from gone where device.id = ${left.deviceId}`.execute(database.db);
  const worker = workerIdentity(await fleetToken(clients), "worker");
  await connectWorker(replica.url, worker);
  const { watcher: there } = await clients.watchers.createWatcher({
    slug: "there",
    spec: { name: "there", prompt: "p" },
  });
  const watchersOf = async () => (await clients.watchers.listWatchers({})).watchers;
  const had = await watchersOf();
  await sql`update org set metadata = metadata || ${{ watchers_max: had.length + 1 }}::jsonb
    where id = ${replica.orgId}`.execute(database.db);
  write(`
[agents.ada]
identity = "You are Ada."
[[agents.ada.watchers]]
slug = "there"
prompt = "Summarise."
device = "left"
[[agents.ada.watchers]]
slug = "one"
prompt = "Summarise."
device = "worker"
[[agents.ada.watchers]]
slug = "two"
prompt = "Summarise."
`);
  // The cached count expires within this time.
  await vi.waitFor(
    async () => {
      const { watchersLeft } = await clients.watchers.createWatcher({
        dryRun: true,
        slug: "room",
        spec: there!.spec!,
      });
      expect(watchersLeft).toBe(1);
    },
    { timeout: 10_000, interval: 200 },
  );
  for (const args of [["--dry-run"], ["--yes"]]) {
    const answer = await apply(...args);
    expect(answer).toMatchObject({ code: 2 });
    expect(answer.err).toMatch(
      /:7: agents\.ada\.watchers\[1\]\.device: the owner of device "left" is no member/,
    );
    expect(answer.err).toMatch(/:11: agents\.ada\.watchers\[2\]\.device: "worker" is a fleet worker/);
    expect(answer.err).toMatch(/:12: .*room for 1 more watchers, and the file makes 2/);
    expect(answer.err).toContain("nothing was changed");
  }
  expect((await clients.agents.listAgents({})).agents.map(({ id }) => id)).toEqual(["pinion-default"]);
  expect((await watchersOf()).map(({ slug, version }) => [slug, version])).toEqual(
    had.map(({ slug, version }) => [slug, version]),
  );
});

test("a device of another org is none, by its label and by its id, and nothing is changed", async () => {
  const { write, apply, replica } = await start();
  const other = await addDevice(database.db, await addTenant(database.db, "globex"), { label: "theirs" });
  for (const device of ["theirs", other.deviceId]) {
    write(`
[agents.ada]
[[agents.ada.watchers]]
slug = "digest"
prompt = "Summarise."
device = "${device}"
`);
    const answer = await apply("--yes");
    expect(answer).toMatchObject({ code: 2 });
    expect(answer.err).toMatch(/:6: agents\.ada\.watchers\[1\]\.device: /);
    expect(answer.err).toContain("nothing was changed");
  }
  expect((await replica.clients.agents.listAgents({})).agents.map(({ id }) => id)).toEqual([
    "pinion-default",
  ]);
});

test("what the file does not have is shown, and deleted only with --prune; the default agent stays", async () => {
  const { write, apply, replica } = await start();
  write(example);
  await apply("--yes");
  await replica.clients.watchers.createWatcher({ slug: "by-hand", spec: { name: "x", prompt: "x" } });
  write("[agents.ada]\n");
  const shown = await apply("--yes");
  expect(shown.code).toBe(0);
  expect(shown.out).toContain("? watcher  by-hand");
  expect(shown.out).toContain("4 on the server only");
  const pruned = await apply("--prune", "--yes", "--json");
  expect(pruned.err).toBe("");
  expect(JSON.parse(pruned.out).done).toMatchObject({ delete: 3 });
  expect((await replica.clients.agents.listAgents({})).agents.map(({ id }) => id)).toEqual([
    "ada",
    "pinion-default",
  ]);
  expect((await replica.clients.agents.listPlatforms({})).platforms).toEqual([]);
  expect((await replica.clients.watchers.listWatchers({})).watchers).toEqual([]);
});

test("--only leaves the rest alone", async () => {
  const { write, apply, replica } = await start();
  write(example);
  const early = await apply("--yes", "--only", "watchers");
  expect(early).toMatchObject({ code: 2 });
  expect(early.err).toContain("there is no such agent yet");
  await apply("--yes", "--only", "agents", "--only", "watchers");
  expect((await replica.clients.agents.listPlatforms({})).platforms).toEqual([]);
  expect((await replica.clients.watchers.listWatchers({})).watchers).toHaveLength(1);
  const rest = await apply("--yes", "--json", "--only", "platforms", "--prune");
  expect(JSON.parse(rest.out).done).toMatchObject({ create: 1, delete: 0 });
});

test("an agent's device is shown by its label, pinned, left alone where the file says nothing, and taken off by an empty one", async () => {
  const { write, apply, replica } = await start();
  const mac = await enrolDevice(replica.clients, "mac-7");
  const deviceOf = async (agentId: string) =>
    (await replica.clients.agents.getAgent({ agentId })).agent!.deviceId;
  const file = (device: string) => `[agents.ada]\nname = "Ada"\n${device}\n`;
  write(file('device = "nowhere"'));
  const unknown = await apply("--yes");
  expect(unknown.code).toBe(2);
  expect(unknown.err).toContain(":3");
  expect(unknown.err).toContain('no device is called "nowhere"');
  // A new agent is created and pinned; an existing agent is pinned.
  write(`${file('device = "mac-7"')}[agents.bob]\nname = "Bob"\n`);
  expect(await apply("--yes")).toMatchObject({ code: 0, err: "" });
  expect(await deviceOf("ada")).toBe(mac.deviceId);
  write(`${file("")}[agents.bob]\ndevice = "${mac.deviceId}"\n`);
  const dry = await apply("--dry-run");
  expect(dry.out).toMatch(/device.*mac-7/);
  expect(await apply("--yes")).toMatchObject({ code: 0 });
  expect([await deviceOf("ada"), await deviceOf("bob")]).toEqual([mac.deviceId, mac.deviceId]);
  write(file('device = ""'));
  expect(await apply("--yes")).toMatchObject({ code: 0 });
  expect(await deviceOf("ada")).toBe("");
  expect(JSON.parse((await apply("--json")).out).summary).toMatchObject({ create: 0, update: 0 });
});

test("pull writes a file that, applied, changes nothing", async () => {
  const { write, apply, pull, file, env, replica } = await start();
  const mac = await enrolDevice(replica.clients, "mac-7");
  write(example);
  await apply("--yes");
  await replica.clients.watchers.createWatcher({
    slug: "odd",
    spec: {
      name: 'Quotes " and \\ and $HOME and $$',
      prompt: `Line 1\nLine """2"""\n\ttab $PATH \${X} "`,
      deviceId: mac.deviceId,
      agentId: "ada",
      extractionSchema: { $ref: "#/$defs/x", enum: [null, "'''"] },
    },
  });
  for (const [slug, schedule] of [
    ["once", "@at 2126-12-01T09:00"],
    ["often", "@every 90m from 2026-12-01T09:00"],
    ["hourly", "@every 1h"],
    ["hashed", "H/15 * * * FRI-MON"],
  ] as const) {
    const spec = { name: slug, prompt: "x", agentId: "ada", timeZone: "Europe/Berlin", schedule };
    await replica.clients.watchers.createWatcher({ slug, spec });
  }
  await replica.clients.agents.updateAgentSettings({
    agentId: "ada",
    settings: { egressConfig: { allowedHosts: [] }, guardrails: ["a".repeat(80), "b $A"] },
    updateMask: { paths: ["egress_config", "guardrails"] },
    deviceId: mac.deviceId,
  });
  expect(await pull()).toMatchObject({ code: 6 });
  const pulled = await pull("--force");
  expect(pulled.out).toMatch(
    / written: \d+ agents, 0 destinations, 1 platform, \d+ watchers, 0 hooks, 0 devices\n/,
  );
  expect(pulled).toMatchObject({ code: 0, err: "before it is applied, set: ADA_TELEGRAM_BOT_TOKEN\n" });
  const text = readFileSync(file, "utf8");
  expect(text).toContain('bot_token = "$ADA_TELEGRAM_BOT_TOKEN"');
  expect(text).toContain('name = "Ada"\ndevice = "mac-7"');
  expect(text).toContain('at = "2126-12-01T09:00"');
  expect(text).toContain('every = "90m"\nanchor = "2026-12-01T09:00"');
  const missing = await apply("--yes");
  expect(missing).toMatchObject({ code: 2 });
  expect(missing.err).toContain("$ADA_TELEGRAM_BOT_TOKEN is not set");
  const again = await runCommand(
    { ...env, ADA_TELEGRAM_BOT_TOKEN: secret },
    ...["apply", "-f", file, "--json", "--prune"],
  );
  expect(again.err).toBe("");
  expect(JSON.parse(again.out).summary).toMatchObject({ create: 0, update: 0, delete: 0, drift: 0 });
  await pull();
  expect(readFileSync(file, "utf8")).toBe(text);
});

test("an apply that is stopped between any two writes is finished by the next one", async () => {
  const { replica } = await start();
  for (let writes = 1; writes < 4; writes++) {
    // One resource of each kind per round, so that the order of the writes is known.
    const text = example.replaceAll(/ada|digest/g, (name) => `${name}-${writes}`);
    const { plan, run } = parts(replica, text);
    const controller = new AbortController();
    let seen = 0;
    const stopped = run(await plan(), {
      signal: controller.signal,
      onDone: () => {
        seen += 1;
        if (seen === writes) controller.abort();
      },
    });
    if (writes < 3) await expect(stopped).rejects.toThrow();
    else await stopped;
    const rest = await plan();
    expect(names(rest.steps.filter(({ action }) => action === "create"))).toHaveLength(3 - writes);
    await run(rest);
    expect((await plan()).steps.filter(({ action }) => action === "create" || action === "update")).toEqual(
      [],
    );
  }
});

test("people who apply one file at the same moment all succeed, and everything is there once", async () => {
  const { replica } = await start();
  const beside = await startTestReplica(database.url, {
    PINION_SECRET_KEYS: secretKeys,
    PINION_DESTINATION_NETWORKS: "127.0.0.1",
  });
  const other = asSeenWith(beside, replica.token);
  const text = `${example}${[1, 2, 3, 4].map((n) => `[[agents.ada.watchers]]\nslug = "w-${n}"\nprompt = "x"\n`).join("")}`;
  const people = [replica, replica, other, replica].map((server) => parts(server, text));
  const plans = await Promise.all(people.map(({ plan }) => plan()));
  const ended = await Promise.all(people.map(({ run }, index) => run(plans[index]!)));
  expect(ended.flatMap(({ failed }) => failed)).toEqual([]);
  expect((await replica.clients.watchers.listWatchers({})).watchers).toHaveLength(5);
  const after = await people[0]!.plan();
  expect(names(after.steps.filter(({ action }) => action !== "noop"))).toEqual([
    "drift agent pinion-default",
  ]);
});

test("an edit between the plan and its writes is planned again, and the org ends as the file says", async () => {
  const { replica } = await start();
  const first = parts(replica, example);
  await first.run(await first.plan());
  const second = parts(replica, example.replace("You are Ada.", "You are new.").replace("90m", "2h"));
  const plan = await second.plan();
  await replica.clients.agents.updateAgentSettings({ agentId: "ada", name: "Eve" });
  await replica.clients.watchers.deleteWatcher({ watcherId: "digest" });
  const { done } = await second.run(plan);
  expect(names(done).sort()).toEqual(["create watcher digest", "update agent ada"]);
  const { agent } = await replica.clients.agents.getAgent({ agentId: "ada" });
  expect(agent).toMatchObject({ name: "Ada", settings: { identity: "You are new." } });
});

test("a platform that does not start is told with its reason, keeps nothing else back, and is tried again", async () => {
  // The secrets of a server's environment are those of the operator's org.
  const { write, apply, replica } = startIn(shared());
  const text = example.replace('bot_token = "$BOT"', 'bot_token = "secret://TEAM_BOT"');
  // Planned with a server that has the secret, applied by a server without the secret.
  const beside = await startTestReplica(database.url, {
    PINION_DESTINATION_NETWORKS: "127.0.0.1",
    PINION_SECRET_KEYS: secretKeys,
    PINION_SECRET_TEAM_BOT: secret,
  });
  const richer = asSeenWith(beside, replica.token);
  const plan = await parts(richer, text).plan();
  const { failed } = await parts(replica, text).run(plan);
  expect(failed).toMatchObject([
    { step: { id: "ada-telegram" }, message: expect.stringContaining("PINION_SECRET_TEAM_BOT") },
  ]);
  expect((await replica.clients.watchers.listWatchers({})).watchers).toHaveLength(1);
  expect((await replica.clients.agents.listPlatforms({})).platforms).toMatchObject([
    { status: PlatformStatus.FAILED },
  ]);
  write(example);
  expect(await apply("--yes")).toMatchObject({ code: 0, out: expect.stringContaining("its start failed") });
});

test("all variables that are missing are named at once, the server's too, before anything is changed", async () => {
  const { write, apply, replica } = await start();
  const text = `${example}
[[agents.ada.platforms]]
id = "ada-slack"
kind = "slack"
config = { bot_token = "secret://SLACK_BOT", signing_secret = "secret://SLACK_SIGNING" }
[[agents.ada.platforms]]
id = "ada-hook"
kind = "webhook"
config = { url = "secret://HOOK", signing_secret = "secret://HOOK_KEY" }
`;
  write(text);
  const lacking = ["PINION_SECRET_SLACK_BOT", "PINION_SECRET_SLACK_SIGNING", "PINION_SECRET_HOOK"];
  const server = await apply("--yes");
  expect(server.code).toBe(2);
  for (const name of lacking) expect(server.err).toContain(`set ${name} and restart it`);
  expect(server.err).toMatch(/pinion\.toml:\d+: agents\.ada\.platforms\[2\]\.config\.bot_token: /);
  write(text.replace("$BOT", "$NOT_SET").replace('chat_id = "1"', 'chat_id = "$NOR_THIS"'));
  const both = await apply("--dry-run");
  expect(both.code).toBe(2);
  for (const name of lacking) expect(both.err).toContain(`set ${name} and restart it`);
  expect(both.err).toContain("$NOT_SET is not set");
  expect(both.err).toContain("$NOR_THIS is not set");
  expect(both.err).toContain("nothing was changed");
  const alone = await apply("--dry-run", "--url", "http://127.0.0.1:9");
  expect(alone).toMatchObject({ code: 2, err: expect.stringContaining("$NOT_SET is not set") });
  expect((await replica.clients.agents.listAgents({})).agents).toHaveLength(1);
});

test("the example is applied as it stands, but for Telegram's address, with the one variable that it names", async () => {
  const { env, file, write } = await start();
  const text = readFileSync(fileURLToPath(new URL("../../../pinion.example.toml", import.meta.url)), "utf8");
  const settings = "[agents.ada.platforms.config]\n";
  write(text.replace(settings, `${settings}api_url = "${telegram.url}"\n`));
  const missing = await runCommand(env, "apply", "-f", file, "--yes");
  expect(missing).toMatchObject({ code: 2 });
  expect(missing.err.match(/is not set/g)).toHaveLength(1);
  const given = { ...env, ADA_TELEGRAM_BOT_TOKEN: secret };
  expect(await runCommand(given, "apply", "-f", file, "--yes")).toMatchObject({ code: 0, err: "" });
  expect(await runCommand(given, "apply", "-f", file, "--dry-run", "--exit-code")).toMatchObject({ code: 0 });
});

test("an agent whose watcher runs is pruned or deleted, the run goes on as it was given, and the watcher says why it fires no more", async () => {
  const { write, apply, replica } = await start();
  const { agents, watchers, runs } = replica.clients;
  write(example);
  await apply("--yes");
  await watchers.createWatcher({
    slug: "left",
    spec: { name: "Left", prompt: "x", agentId: "ada" },
  });
  const { run } = await watchers.triggerWatcher({ watcherId: "left" });
  // The watcher of another agent's file stays, its agent is removed.
  write("");
  const pruned = await apply("--yes", "--prune", "--only", "agents");
  expect(pruned).toMatchObject({ code: 0 });
  expect((await agents.listAgents({})).agents.map(({ id }) => id)).toEqual(["pinion-default"]);
  expect((await runs.getRun({ runId: run!.id })).run).toMatchObject({ status: RunStatus.PENDING });
  await runs.cancelRun({ runId: run!.id });
  await expect(watchers.triggerWatcher({ watcherId: "left" })).rejects.toMatchObject({
    reason: "failed_precondition",
    rawMessage:
      "the watcher's agent does not exist; make an agent with its id again, or give the watcher another one",
  });
  const all = await apply("--yes", "--prune");
  expect(all).toMatchObject({ code: 0 });
  expect((await watchers.listWatchers({})).watchers).toEqual([]);
});

test("people who apply different files at once all succeed, and each thing ends as one of them says", async () => {
  const { replica } = await start();
  const texts = [example, example.replace("You are Ada.", "You are Bea.").replace("90m", "2h")];
  const people = texts.map((text) => parts(replica, text));
  const ended = await Promise.all(people.map(async ({ plan, run }) => run(await plan())));
  expect(ended.flatMap(({ failed }) => failed)).toEqual([]);
  const { agent } = await replica.clients.agents.getAgent({ agentId: "ada" });
  expect(["You are Ada.", "You are Bea."]).toContain(agent!.settings!.identity);
  // The last apply leaves the state as in its file.
  for (const { plan, run } of people) {
    await run(await plan());
    expect((await plan()).steps.filter(({ action }) => action === "update")).toEqual([]);
  }
});

test("destinations are made, changed, pulled and pruned; a secret is compared by the server and never shown", async () => {
  const { replica, write, apply, pull, file } = await start();
  const destinations = `
[destinations.ops]
name = "Ops"
kind = "webhook"
url = "https://hooks.example.org/pinion"
signing_secret = "$HOOK_SECRET"

[destinations.team]
kind = "slack"
bot_token = "$BOT"
channel = "#ops"
takes_alerts = false
`;
  const watcher = `
[agents.ada]
name = "Ada"
[[agents.ada.watchers]]
slug = "told"
prompt = "Look."
notify = [{ to = "ops", when = "failure" }, { to = "team", when = "change" }]
`;
  write(destinations + watcher);
  const first = await apply("--yes", "--json");
  expect(first.code).toBe(0);
  expect(JSON.parse(first.out)).toMatchObject({ applied: true, done: { create: 4 } });
  const { watcher: told } = await replica.clients.watchers.getWatcher({ watcherId: "told" });
  expect(told!.spec!.notify.map(({ to }) => to)).toEqual(["ops", "team"]);
  expect(JSON.parse((await apply("--yes", "--json")).out).summary).toMatchObject({ noop: 4, update: 0 });

  write((destinations + watcher).replace("$HOOK_SECRET", "$OTHER_SECRET").replace('"#ops"', '"#dev"'));
  const second = await apply("--yes", "--json");
  expect(JSON.parse(second.out).done).toMatchObject({ update: 2 });
  expect(second.out).toContain("#dev");
  expect(second.out).not.toContain(variables.OTHER_SECRET);

  const pulled = file.replace(/pinion\.toml$/, "pulled.toml");
  expect((await pull("-f", pulled)).code).toBe(0);
  const text = readFileSync(pulled, "utf8");
  expect(text).toContain('{ to = "ops", when = "failure" }');
  expect(text).toMatch(
    /\[destinations\.team\]\nkind = "slack"\nchannel = "#dev"\nbot_token = "\$TEAM_BOT_TOKEN" # a secret/,
  );
  expect(text).not.toContain("whsec_");

  write("[agents.ada]\nname = 'Ada'\n");
  expect((await apply("--yes", "--prune")).code).toBe(0);
  expect((await replica.clients.destinations.listDestinations({})).destinations).toEqual([]);
  write('[destinations.x]\nkind = "slack"\nurl = "https://example.org"\n');
  const wrong = await apply("--yes");
  expect(wrong.err).toMatch(/destinations\.x\.url: a slack destination has no such key/);
  expect(wrong.err).toMatch(/destinations\.x: a slack destination has either webhook_url or bot_token/);
});

test("a destination may be a chat of a platform in the same file", async () => {
  const { replica, write, apply, pull, file } = await start();
  const told = (chat: string) => `
[destinations.team-chat]
name = "The team"
kind = "platform"
platform = "ada-program"
chat = "${chat}"

[agents.ada]
name = "Ada"
[[agents.ada.platforms]]
id = "ada-program"
kind = "webhook"
config = { url = "http://127.0.0.1:9/", signing_secret = "$HOOK_SECRET" }
[[agents.ada.watchers]]
slug = "told"
prompt = "Look."
notify = [{ to = "team-chat", when = "always" }]
`;
  write(told("standup"));
  const first = await apply("--yes", "--json");
  expect(first).toMatchObject({ code: 0 });
  expect(JSON.parse(first.out)).toMatchObject({ applied: true, done: { create: 4 } });
  const chatOf = async () => {
    const { destinations } = await replica.clients.destinations.listDestinations({});
    return destinations.map(({ spec }) => spec?.kind);
  };
  const kind = { case: "platform", value: { platformId: "ada-program", chat: "standup" } };
  expect(await chatOf()).toMatchObject([kind]);
  expect(JSON.parse((await apply("--yes", "--json")).out).summary).toMatchObject({ noop: 4, update: 0 });
  write(told("releases"));
  expect(JSON.parse((await apply("--yes", "--json")).out).done).toMatchObject({ update: 1 });
  expect(await chatOf()).toMatchObject([{ ...kind, value: { ...kind.value, chat: "releases" } }]);

  const pulled = file.replace(/pinion\.toml$/, "pulled.toml");
  expect((await pull("-f", pulled)).code).toBe(0);
  expect(readFileSync(pulled, "utf8")).toMatch(
    /\[destinations\.team-chat\]\nname = "The team"\nkind = "platform"\nplatform = "ada-program"\nchat = "releases"/,
  );
  write('[destinations.x]\nkind = "platform"\nplatform = "ada-program"\nchannel = "#ops"\n');
  const wrong = await apply("--yes");
  expect(wrong.err).toMatch(/destinations\.x\.channel: a platform destination has no such key/);
});

test("hooks and labels of devices are written, changed, pulled and pruned; a hook's secret is compared by the server and never shown", async () => {
  const { replica, write, apply, pull, file, env } = await start();
  const mac = await enrolDevice(replica.clients, "Ada's Mac");
  const watchers = (after = "") => `
[agents.ada]
name = "Ada"
[[agents.ada.watchers]]
slug = "review"
prompt = "Look at {{ input.sha }}."
selector = '"gpu" in labels'
${after}`;
  const hooks = `
[devices."Ada's Mac"]
labels = ["team=web", "gpu"]

[hooks.pushes]
watcher = "review"
kind = "bearer"
mapping = '{"sha": input.after}'
secret = "$HOOK_SECRET"
`;
  write(watchers() + hooks);
  const first = await apply("--yes");
  expect(first.err).toBe("");
  expect(first.out).toMatch(/~ device +Ada's Mac\n +labels: \[\] → \["gpu","team=web"\]/);
  expect(first.out).toMatch(/\+ hook +pushes/);
  const device = async () => (await replica.clients.fleet.getDevice({ deviceId: mac.deviceId })).device!;
  expect((await device()).labels).toEqual(["gpu", "team=web"]);
  const { hook } = await replica.clients.hooks.getHook({ hookId: "pushes" });
  const post = async (secret: string) =>
    (
      await fetch(`${replica.url}/hooks/${hook!.id}`, {
        method: "POST",
        body: '{"after":"abc"}',
        headers: { authorization: `Bearer ${secret}` },
      })
    ).status;
  expect(await post(variables.HOOK_SECRET)).toBe(202);
  expect(JSON.parse((await apply("--json")).out).summary).toMatchObject({ noop: 4, create: 0, update: 0 });

  write(
    watchers() +
      hooks
        .replace("$HOOK_SECRET", "$OTHER_SECRET")
        .replace('"team=web", ', "")
        .replace("input.after", "input.before"),
  );
  const second = await apply("--yes");
  expect(second.out).toMatch(/~ hook +pushes\n +mapping: .*\n +secret: "\(hidden\)" → "\(hidden\)"/);
  expect(second.out).not.toContain(variables.OTHER_SECRET);
  expect((await device()).labels).toEqual(["gpu"]);
  // The old secret stays good for its overlap.
  expect([await post(variables.OTHER_SECRET), await post(variables.HOOK_SECRET)]).toEqual([202, 202]);

  expect((await pull("--force")).out).toMatch(/1 hook, 1 device\n$/);
  const text = readFileSync(file, "utf8");
  expect(text).toContain('[devices."Ada\'s Mac"]\nlabels = ["gpu"]');
  expect(text).toContain(
    '[hooks.pushes]\nwatcher = "review"\nkind = "bearer"\nmapping = "{\\"sha\\": input.before}"\n',
  );
  expect(text).not.toMatch(/secret/);
  expect(JSON.parse((await apply("--json", "--prune")).out).summary).toMatchObject({
    create: 0,
    update: 0,
    delete: 0,
  });

  // A secret of the server stays with the server; the file names it.
  write(`${watchers()}[hooks.pushes]\nwatcher = "review"\nkind = "bearer"\nsecret = "secret://HOOK"\n`);
  expect((await apply("--yes")).code).toBe(0);
  expect(await post(variables.OTHER_SECRET)).toBe(202);
  await pull("--force");
  expect(readFileSync(file, "utf8")).toContain('secret = "secret://HOOK"');
  expect((await runCommand(env, "hooks", "get", "pushes")).out).toContain("secret://HOOK");

  write(watchers());
  const drift = JSON.parse((await apply("--json", "--dry-run")).out);
  expect(
    drift.steps.filter(({ action }: Step) => action === "drift").map(({ kind, id }: Step) => `${kind} ${id}`),
  ).toContain("hook pushes");
  expect((await apply("--yes", "--prune")).code).toBe(0);
  expect((await replica.clients.hooks.listHooks({})).hooks).toEqual([]);
  expect((await device()).labels).toEqual(["gpu"]);
});

test("mistakes of hooks and labels are all named, with their lines, before anything is changed", async () => {
  const { replica, write, apply } = await start();
  const mac = await enrolDevice(replica.clients, "mac-7");
  write(`
[devices.mac-7]
labels = ["has:codex", "GPU"]
[devices.mac-8]
labels = []
[hooks.a]
watcher = "nowhere"
kind = "github"
filter = "inputs.a == 1"
secret = "short"
rate_per_minute = 7000
[hooks.b]
kind = "jira"
filters = "x"
[hooks.c]
watcher = "nowhere"
kind = "slack"
`);
  const wrong = await apply("--yes");
  expect(wrong.code).toBe(2);
  for (const text of [
    /:3: devices\.mac-7\.labels\[1\]: "has:codex" is a label that the device itself reports/,
    /:3: devices\.mac-7\.labels\[2\]: "GPU" is no label/,
    /hooks\.a\.filter: there is no "inputs"/,
    /hooks\.a\.secret: must be 16 to 200 printable characters/,
    /hooks\.a\.rate_per_minute/,
    /hooks\.b\.watcher: is missing/,
    /hooks\.b\.kind/,
    /hooks\.b\.filters: unknown key; did you mean "filter"\?/,
  ]) {
    expect(wrong.err).toMatch(text);
  }
  write(
    `[devices.mac-8]\nlabels = []\n[devices."${mac.deviceId}"]\nlabels = ["x"]\n[hooks.c]\nwatcher = "nowhere"\nkind = "slack"\n`,
  );
  const unknown = await apply("--yes");
  expect(unknown.err).toMatch(/:1: devices\.mac-8: no device is called "mac-8"/);
  expect(unknown.err).toMatch(/hooks\.c\.watcher: there is no watcher "nowhere", here or on the server/);
  expect((await replica.clients.fleet.getDevice({ deviceId: mac.deviceId })).device!.labels).toEqual([]);
});
