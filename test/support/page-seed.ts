/**
 * One org with something in every view of the web page: devices that are there, gone and never
 * seen, runs of every kind, an agent, a conversation, a platform, a hook, a destination.
 */
import { sql } from "kysely";
import { QuestionOptionKind, WorkspaceMode } from "#gen/pinion/v1/activity_pb.js";
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { type Assignment, Outcome } from "#gen/pinion/v1/device_pb.js";
import { GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import type { TestDatabase } from "./database.ts";
import { connectForFile, type DeviceStream, enrolDevice } from "./device.ts";
import { richCompletion } from "./rich-completion.ts";
import type { TestReplica } from "./server.ts";
import { startTelegram } from "./telegram.ts";

/** Settings of a replica for {@link seedPage}; its devices send no heartbeats by themselves. */
export const pageSettings = {
  PINION_HEARTBEAT_TTL_MS: "600000",
  PINION_SILENT_ATTEMPT_MS: "600000",
  PINION_DESTINATION_NETWORKS: "127.0.0.1",
  PINION_SECRET_KEYS: `k1:${Buffer.alloc(32, 7).toString("base64")}`,
};

export type PageSeed = {
  deviceId: string;
  goneDeviceId: string;
  /** Runs by their state. */
  runs: { answered: string; failed: string; asking: string; waiting: string };
  conversationId: string;
  /** The stream of the connected device; its daemon gives its log. */
  device: DeviceStream;
  close(): Promise<void>;
};

const answer = [
  "# Two findings",
  "",
  "The **parser** accepts `;` where it should not.",
  "",
  "| file | lines |",
  "|---|---|",
  `| ${"src/a-rather-long-folder/".repeat(4)}parser.ts | 12 |`,
  "",
  "```",
  `const wide = "${"x".repeat(140)}";`,
  "```",
].join("\n");

export async function seedPage(replica: TestReplica, database: Pick<TestDatabase, "db">): Promise<PageSeed> {
  const { clients } = replica;
  const { device, deviceId, gone } = await seedDevices(replica, database);
  await seedSettings(clients);
  const runs = await seedWork(clients, { device, deviceId, goneDeviceId: gone.deviceId });
  await seedHook(replica);
  const turn = await seedTurn(clients);
  const telegram = await startTelegram();
  await clients.agents.upsertPlatform({
    ...{ stableId: "team-chat", agentId: "scribe", kind: "telegram" },
    config: { api_url: telegram.url, allow_from: "*" },
    secrets: { bot_token: { kind: { case: "value", value: telegram.token } } },
  });

  return {
    deviceId,
    goneDeviceId: gone.deviceId,
    runs,
    conversationId: turn.conversationId,
    device,
    async close() {
      device.cancel();
      await clients.agents.deletePlatform({ stableId: "team-chat" });
      await telegram[Symbol.asyncDispose]();
    },
  };
}

type Clients = TestReplica["clients"];

/** A connected device with labels, absences and a grant; one that left, and one never seen. */
async function seedDevices(replica: TestReplica, database: Pick<TestDatabase, "db">) {
  const { clients } = replica;
  const { fleet, orgs } = clients;
  const identity = await enrolDevice(clients, "a device with a rather long name, as people give them");
  const { deviceId } = identity;
  const gone = await enrolDevice(clients, "closed-laptop");
  await enrolDevice(clients, "never-seen");
  const device = await connectForFile(replica.url, identity, {
    maxConcurrency: 3,
    capabilities: ["log"],
    agentKinds: ["claude-code", "nightly-build"],
    executors: [
      {
        ...{ kind: "claude-code", type: "claude-code", version: "2.1.3 (Claude Code)" },
        secretNames: ["ANTHROPIC_API_KEY", "GITHUB_TOKEN"],
      },
      { kind: "nightly-build", type: "command", problem: "make is not there, or may not be executed" },
    ],
    workspaces: [{ name: "pinion", mode: WorkspaceMode.WORKTREE }],
  });
  const left = await connectForFile(replica.url, gone);
  left.cancel();
  // A device that was away twice this week, and one that left an hour ago.
  await sql`update device set absences = ${JSON.stringify([span(70, 62), span(30, 26.5)])}::jsonb
    where id = ${deviceId}`.execute(database.db);
  await fleet.labelDevice({ deviceId, add: ["gpu", "team=web"] });
  const { member } = await orgs.addMember({
    email: "bea@example.org",
    name: "Bea Lindqvist",
    role: MemberRole.MEMBER,
  });
  await fleet.grantDevice({
    deviceId,
    grantee: { kind: { case: "userId", value: member!.userId } },
    permissions: [GrantPermission.USE],
  });
  return { device, deviceId, gone };
}

/** A destination, and an agent with two versions. */
async function seedSettings({ destinations, agents }: Clients): Promise<void> {
  await destinations.createDestination({
    slug: "ops",
    spec: { name: "Ops", kind: { case: "webhook", value: { url: "http://127.0.0.1:9/hook" } } },
  });
  await destinations.testDestination({ destinationId: "ops" }).catch(() => {});
  await agents.createAgent({
    agentId: "scribe",
    name: "Scribe",
    settings: { identity: "You write." },
  });
  await agents.updateAgentSettings({
    agentId: "scribe",
    settings: { identity: "You write, and briefly." },
    updateMask: { paths: ["identity"] },
  });
}

/** Watchers in each state, and runs: answered, failed, asking, waiting. */
async function seedWork(
  { watchers }: Clients,
  { device, deviceId, goneDeviceId }: { device: DeviceStream; deviceId: string; goneDeviceId: string },
): Promise<PageSeed["runs"]> {
  const make = async (name: string, more: object = {}) =>
    (
      await watchers.createWatcher({
        spec: {
          name,
          prompt: `Look at ${name}, and say what changed since yesterday.`,
          deviceId,
          schedule: "0 9 * * 1-5",
          timeZone: "Asia/Tokyo",
          notify: [{ to: "ops", when: NotifyWhen.FAILURE }],
          ...more,
        },
      })
    ).watcher!;
  const trigger = async (watcherId: string) => {
    await watchers.triggerWatcher({ watcherId });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    return assignment;
  };
  const digest = await make("Morning digest");
  await device.complete(await trigger(digest.id), "three pull requests\ntwo issues");
  await watchers.updateWatcher({
    watcherId: digest.id,
    spec: { prompt: "Look at the digest, in two lines." },
    updateMask: { paths: ["prompt"] },
  });
  const second = await trigger(digest.id);
  const output = `${"a-long-word-".repeat(40)}\nand a short line`;
  const value = richCompletion(second, { output, resultText: answer });
  device.send({ case: "complete", value });
  await device.next("completionAck");
  const build = await make("Nightly build", { after: ["morning-digest"] });
  const failed = await trigger(build.id);
  await device.complete(failed, "", Outcome.FAILED, "3 of 214 tests failed");
  const paused = await make("Paused");
  await watchers.pauseWatcher({ watcherId: paused.id, reason: "until the lab is open again" });
  await make("Anywhere", { deviceId: "", selector: '"gpu" in labels' });
  const elsewhere = await make("Waits", { deviceId: goneDeviceId });
  const { run: waiting } = await watchers.triggerWatcher({ watcherId: elsewhere.id });
  const asking = await trigger(build.id);
  await ask(device, asking);
  return { answered: second.workId, failed: failed.workId, asking: asking.workId, waiting: waiting!.id };
}

/** The agent of an attempt asks a question. */
async function ask(device: DeviceStream, asking: Assignment): Promise<void> {
  const { workId, attemptToken } = asking;
  const question = {
    id: "q1",
    title: "May I push?",
    options: [
      { id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE },
      { id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE },
    ],
  };
  device.send({ case: "question", value: { workId, attemptToken, question } });
  await device.beat([asking]);
}

/** A hook with a taken, a filtered and a refused delivery. */
async function seedHook(replica: TestReplica): Promise<void> {
  const { hooks } = replica.clients;
  const { url, secret } = await hooks.createHook({
    slug: "pushes",
    spec: { watcherId: "paused", kind: HookKind.BEARER, filter: 'input.ref == "main"' },
  });
  const post = (body: object, token = secret) =>
    fetch(`${replica.url}${url}`, {
      ...{ method: "POST", body: JSON.stringify(body), headers: { authorization: `Bearer ${token}` } },
    });
  await post({ ref: "main", by: { name: "ann" } });
  await post({ ref: "else" });
  await post({ ref: "main" }, "another");
}

/** A cancelled turn. */
async function seedTurn({ turns }: Clients) {
  const { turn } = await turns.startTurn({
    agentId: "scribe",
    userId: "ada",
    messageId: "m1",
    input: "Hello? Is anybody there who could write two lines about the release?",
  });
  await turns.cancelTurn({ turnId: turn!.id });
  return turn!;
}

/** An absence, by hours before now. */
function span(fromHours: number, toHours: number) {
  const at = (hours: number) => new Date(Date.now() - hours * 3_600_000).toISOString();
  return { from: at(fromHours), to: at(toHours) };
}
