/**
 * Every command with --json, through a real replica: one document, or lines of JSON, and no other
 * output.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BulkKind, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { processCli } from "../../../src/cli/cli.ts";
import { createProgram } from "../../../src/cli/program.ts";
import { runCommand } from "../../support/command.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";
import { startWork, takeOn, untilStatus } from "../../support/work.ts";

const home = mkdtempSync(join(tmpdir(), "pinion-json-"));
const secretKey = `k1:${Buffer.alloc(32, 7).toString("base64")}`;
const database = useDatabase({ per: "file" });
let replica: TestReplica;

beforeAll(async () => {
  replica = await openTestReplica(database.url, {
    PINION_SECRET_KEYS: secretKey,
    PINION_HEARTBEAT_TTL_MS: "60000",
  });
});
afterAll(async () => {
  await replica.stop();
  rmSync(home, { recursive: true, force: true });
});

/** Commands without a document to print, with the reason. */
const exempt: Record<string, string> = {
  "devices log": "asks a daemon that is connected; test/integration/server/device/device-log.test.ts",
  "orgs move": "works on the databases of two cells; test/integration/server/cluster/org-move.slow.test.ts",
  up: "runs until it is stopped; `up --once --json` is tried in test/e2e/cli/up.test.ts",
  serve: "runs until it is stopped; with --json it says where it listens in one line",
  "device run": "runs until it is stopped; with --json it logs lines of JSON",
  worker: "runs until it is stopped; with --json it logs lines of JSON (test/e2e/worker.test.ts)",
  "device conformance": "starts a daemon; tried with --json in test/e2e/cli/conformance.slow.test.ts",
  "device install": "changes the machine's services; test/unit/cli/device-install.test.ts",
  "device uninstall": "the same",
  "device status": "the same",
  top: "draws on a terminal, and says so to programs; test/e2e/cli/top.test.ts",
  "turns watch": "follows until the end; test/integration/cli/turns.test.ts",
  "destinations test":
    "sends to where this machine may not; test/integration/server/destinations/deliveries.test.ts has the rpc",
  "hooks inspect": "needs a delivery; test/integration/server/rpc/hooks.test.ts has the rpc",
  "hooks replay": "the same",
  completion: "prints a script for a shell",
  "runs follow-up":
    "needs an agent that keeps sessions; test/integration/server/device/agent-reports.test.ts has the rpc",
  complete: "answers that script, in the form that shells read",
};

/** Command lines that return data, in an order in which they can follow each other. */
async function commandLines(): Promise<string[]> {
  const { clients, url } = replica;
  const [box, doomed] = [await enrolDevice(clients, "box"), await enrolDevice(clients, "doomed")];
  const stream = await connect(url, box);
  const ended = await startWork(clients, box);
  await stream.complete(await takeOn(stream));
  await untilStatus(clients, { workId: ended.id }, RunStatus.COMPLETED);
  const waiting = await startWork(clients, doomed);
  const { joinCode } = await clients.fleet.createJoinCode({});
  const file = join(home, "pinion.toml");
  writeFileSync(file, '[agents.helper]\nname = "Helper"\n');
  const signedIn = await clients.signIns.signIn({ credential: { case: "token", value: replica.token } });
  const newToken = () =>
    clients.tokens.createToken({ label: "spare", scopes: ["read"], kind: TokenKind.SVC });
  const { turn } = await clients.turns.startTurn({ userId: "bob", messageId: "m1", input: "hello" });
  const [rotated, revoked] = [await newToken(), await newToken()];
  const { operation: bulk } = await clients.runs.startBulkOperation({
    kind: BulkKind.CANCEL,
    filter: { watcherId: ended.watcherId, until: { seconds: 1n } },
  });
  return [
    `device enroll --join-code ${joinCode} --state-dir ${join(home, "device")}`,
    `device upgrade --check --state-dir ${join(home, "device")}`,
    `apply -f ${file} --yes`,
    `pull -f ${join(home, "pulled.toml")}`,
    ...["agents list", "agents get helper", "agents create second", "agents update second --name Second"],
    "agents versions second 1",
    "agents delete second",
    "platforms upsert hook --agent helper --kind webhook --secret-env url=HOOK_URL --secret-env signing_secret=HOOK_KEY",
    ...["platforms list", "platforms stop hook", "platforms start hook", "platforms delete hook"],
    "destinations create ops --webhook https://example.org/hook",
    ...["destinations list", "destinations get ops", "destinations update ops --name Ops"],
    ...["destinations rotate ops", "destinations deliveries ops", "destinations replay ops"],
    "destinations delete ops",
    ...["destinations create team --platform team-chat --chat standup", "destinations get team"],
    "destinations delete team",
    "watchers create hourly --prompt look --schedule @hourly --zone UTC --device box",
    ...[
      "watchers list",
      "watchers get hourly",
      "watchers update hourly --name Hourly",
      "watchers versions hourly",
      "watchers pause hourly",
    ],
    ...["watchers resume hourly", "watchers preview hourly", "watchers backfill hourly --from 3h"],
    ...["watchers trigger hourly", "hooks list", "hooks create hourly --kind bearer --slug posted"],
    ...["hooks get posted", "hooks update posted --rate 10", "hooks rotate posted"],
    ...["hooks deliveries posted", "hooks delete posted", "watchers delete hourly"],
    ...["runs list", `runs get ${ended.id}`, `runs watch ${ended.id}`, `runs explain ${ended.id}`],
    `runs cancel --watcher ${ended.watcherSlug} --status pending --dry-run`,
    "runs retry --status failed --since 2h --yes",
    `runs replay --watcher ${ended.watcherSlug} --until 2020-01-01 --yes`,
    "devices list --with gpu",
    ...["bulk list", `bulk get ${bulk!.id}`, `bulk stop ${bulk!.id}`],
    ...["runs questions", `runs answer ${ended.id}`, `runs transcript ${ended.id}`, "usage"],
    ...["runs summary --span 5m", "runs search look"],
    ...[`runs cancel ${waiting.id}`, `runs retry ${ended.id}`, `windows list ${ended.watcherSlug}`],
    ...["devices list", "devices get box", "devices rename doomed late", "devices disconnect box"],
    "devices label box gpu team=web",
    "devices grant box --everyone --read",
    ...["devices grants", "devices revoke box --everyone --read", "tokens generate"],
    ...["devices join-code", "devices delete late"],
    ...["tokens create one --scope read", "tokens list", `tokens rotate ${rotated.token!.id}`],
    `tokens revoke ${revoked.token!.id}`,
    ...["sign-ins link", "sign-ins list", `sign-ins end ${signedIn.signIn!.id}`],
    "orgs create second --owner second@example.com",
    ...["orgs get", "orgs add-member new@example.com", "orgs members", "orgs remove-member new@example.com"],
    ...[`login ${url} --name here --token ${replica.token}`, "context list", "context use here", "logout"],
    ...["version", "events", "doctor", `migrate --database-url ${database.url}`],
    `secrets rotate --database-url ${database.url}`,
    ...["secrets list", "orgs list"],
    "turns start hello --user ada --detach",
    ...["turns list", `turns get ${turn!.id}`, `turns cancel ${turn!.id}`],
    ...["conversations list", `conversations get ${turn!.conversationId}`],
    `conversations delete ${turn!.conversationId}`,
  ];
}

function leaves(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leaves);
}

function nameOf(command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at?.parent; at = at.parent) names.unshift(at.name());
  return names.join(" ");
}

test("every command prints JSON and nothing else with --json, or is exempt for a reason", async () => {
  const env = {
    HOME: home,
    PINION_DATA: join(home, "data"),
    PINION_URL: replica.url,
    PINION_TOKEN: replica.token,
    PINION_SECRET_KEYS: secretKey,
    HOOK_URL: "https://example.com/hook",
    HOOK_KEY: `whsec_${Buffer.alloc(32, 7).toString("base64")}`,
  };
  const commands = leaves(await createProgram(processCli({}))).map(nameOf);
  const tried = new Set<string>();
  const wrong: string[] = [];
  for (const line of await commandLines()) {
    const name = commands.find((each) => line === each || line.startsWith(`${each} `));
    expect(name, line).toBeDefined();
    tried.add(name!);
    const { out, err, code } = await runCommand(env, ...line.split(" "), "--json");
    if (!isJson(out) || (code !== 0 && name !== "doctor"))
      wrong.push(`${line} (exit code ${code})\n${out}${err}`);
  }
  expect(wrong).toEqual([]);
  const untried = commands.filter((name) => !tried.has(name) && !exempt[name]);
  expect(untried).toEqual([]);
  expect(Object.keys(exempt).filter((name) => !commands.includes(name))).toEqual([]);
});

/** Whether the text is a single document, or a document in each line. */
function isJson(text: string): boolean {
  const parses = (part: string) => {
    try {
      return typeof JSON.parse(part) === "object";
    } catch {
      return false;
    }
  };
  return parses(text) || text.trim().split("\n").every(parses);
}
