/**
 * Requests of several people, deliveries and devices, all at once on few watchers, devices, agents
 * and conversations: whatever the order, no two of them deadlock (the run of the tests fails with a
 * deadlock in PostgreSQL's log, see support/deadlocks.ts), and none fails with an error of Pinion's
 * own.
 *
 * PINION_TEST_SEED=<seed> repeats the choices of a run, though not their timing.
 */
import { randomUUID } from "node:crypto";
import { Code, ConnectError } from "@connectrpc/connect";
import { createClients } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import { GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { useDatabase } from "../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../support/device.ts";
import { isLong } from "../support/long.ts";
import { createRandom, type Random } from "../support/random.ts";
import { startTestReplica, type TestReplica } from "../support/server.ts";

const database = useDatabase();
const timeLimitMs = isLong ? 60_000 : 6_000;
/** Requests at a time. */
const callers = 8;
const few = [0, 1, 2, 3] as const;

type Clients = TestReplica["clients"];
type Person = { userId: string; clients: Clients };
type Hook = { path: string; secret: string };

/** All that the requests meet; what is deleted is made again under the same name. */
class Scene {
  readonly replica: TestReplica;
  readonly random: Random;
  readonly devices: string[] = [];
  readonly people: Person[] = [];
  readonly hooks: Hook[] = [];

  constructor(replica: TestReplica, random: Random) {
    this.replica = replica;
    this.random = random;
  }

  get clients(): Clients {
    return this.replica.clients;
  }

  /** Somebody of the org, or its owner. */
  get who(): Clients {
    return this.random.chance(0.5) ? this.clients : (this.random.pick(this.people)?.clients ?? this.clients);
  }

  pick = (kind: string) => `${kind}-${this.random.pick(few)}`;

  device = () => this.random.pick(this.devices) ?? "";

  /** Enrols a device of a person, whose daemon takes and ends what it is given. */
  async addDevice(owner: Clients): Promise<void> {
    const identity = await enrolDevice(owner);
    this.devices.push(identity.deviceId);
    if (this.devices.length > few.length) this.devices.shift();
    // Another request may have deleted the device, or removed its owner, already.
    const stream = await connect(this.replica.url, identity, { maxConcurrency: 4 }).catch(() => undefined);
    if (stream) void work(stream);
  }

  async addPerson(): Promise<void> {
    const email = `${randomUUID()}@example.org`;
    const tokenScopes = ["read", "write", "admin"];
    const asked = { email, role: MemberRole.ADMIN, tokenScopes };
    const { member, secret } = await this.clients.orgs.addMember(asked);
    const clients = createClients({ url: this.replica.url, token: secret });
    onTestFinished(() => clients.close());
    this.people.push({ userId: member!.userId, clients });
    await this.addDevice(clients);
  }
}

async function work(stream: DeviceStream): Promise<void> {
  try {
    for (;;) {
      const assignment = await stream.next("assignment", 600_000);
      stream.accept(assignment);
      void stream.complete(assignment).catch(() => {});
    }
  } catch {
    // The device was deleted, or the test has ended.
  }
}

/** The requests, each on something at random. */
const requests: Record<string, (scene: Scene) => Promise<unknown>> = {
  "make a watcher": ({ who, pick, device, random }) =>
    who.watchers.createWatcher({
      slug: pick("watcher"),
      spec: {
        ...{ name: "W", prompt: "p", schedule: "* * * * *" },
        ...(random.chance(0.7) ? { deviceId: device() } : {}),
        ...(random.chance(0.2) ? { after: [pick("watcher")] } : {}),
      },
    }),
  "pin a watcher": ({ who, pick, device }) =>
    who.watchers.updateWatcher({
      watcherId: pick("watcher"),
      spec: { deviceId: device() },
      updateMask: { paths: ["device_id"] },
    }),
  "chain a watcher": ({ who, pick, random }) =>
    who.watchers.updateWatcher({
      watcherId: pick("watcher"),
      spec: { after: random.chance(0.7) ? [pick("watcher")] : [] },
      updateMask: { paths: ["after"] },
    }),
  "delete a watcher": ({ who, pick }) => who.watchers.deleteWatcher({ watcherId: pick("watcher") }),
  "pause a watcher": ({ who, pick }) => who.watchers.pauseWatcher({ watcherId: pick("watcher") }),
  "resume a watcher": ({ who, pick }) => who.watchers.resumeWatcher({ watcherId: pick("watcher") }),
  "trigger a watcher": ({ who, pick }) => who.watchers.triggerWatcher({ watcherId: pick("watcher") }),
  "make a hook": async ({ who, pick, hooks }) => {
    const spec = { watcherId: pick("watcher"), kind: HookKind.BEARER, ratePerMinute: 6_000 };
    const { url, secret } = await who.hooks.createHook({ slug: pick("hook"), spec });
    hooks.push({ path: url, secret });
  },
  "deliver to a hook": async ({ replica, hooks, random }) => {
    const { path, secret } = random.pick(hooks.slice(-few.length)) ?? {};
    if (!path) return;
    const headers = { authorization: `Bearer ${secret}`, "idempotency-key": randomUUID() };
    const { status } = await fetch(`${replica.url}${path}`, { method: "POST", body: "{}", headers });
    expect(status).toBeLessThan(500);
  },
  "move a hook": ({ who, pick }) =>
    who.hooks.updateHook({
      hookId: pick("hook"),
      spec: { watcherId: pick("watcher") },
      updateMask: { paths: ["watcher_id"] },
    }),
  "delete a hook": ({ who, pick }) => who.hooks.deleteHook({ hookId: pick("hook") }),
  "grant a device": ({ clients, device, people, random }) =>
    clients.fleet.grantDevice({
      deviceId: device(),
      grantee: { kind: { case: "userId", value: random.pick(people)?.userId ?? "" } },
      permissions: [GrantPermission.USE, GrantPermission.READ],
    }),
  "take a grant back": ({ clients, device, people, random }) =>
    clients.fleet.revokeGrant({
      deviceId: device(),
      grantee: { kind: { case: "userId", value: random.pick(people)?.userId ?? "" } },
    }),
  "delete a device": async (scene) => {
    await scene.clients.fleet.deleteDevice({ deviceId: scene.device() });
    await scene.addDevice(scene.who);
  },
  "remove a person": async (scene) => {
    const [person] = scene.people;
    if (!person || scene.people.length < 2) return scene.addPerson();
    scene.people.shift();
    await scene.clients.orgs.removeMember({ userId: person.userId });
  },
  "make an agent": ({ who, pick }) => who.agents.createAgent({ agentId: pick("agent") }),
  "pin an agent": ({ who, pick, device }) =>
    who.agents.updateAgentSettings({ agentId: pick("agent"), deviceId: device() }),
  "delete an agent": ({ who, pick }) => who.agents.deleteAgent({ agentId: pick("agent") }),
  "start a turn": ({ who, pick }) =>
    who.turns.startTurn({
      agentId: pick("agent"),
      userId: pick("user"),
      input: "hi",
      messageId: randomUUID(),
    }),
  "delete a conversation": ({ who, pick }) =>
    who.turns.deleteConversation({ conversationId: `${pick("agent")}_${pick("user")}_local` }),
};

/** Errors that a request may have in a crowd; any other is a fault of Pinion. */
const allowed = new Set([
  ...[Code.NotFound, Code.AlreadyExists, Code.FailedPrecondition, Code.PermissionDenied],
  ...[Code.InvalidArgument, Code.Unauthenticated, Code.ResourceExhausted, Code.Aborted],
]);
/** An `aborted` that Pinion does not mean: a transaction lost five times. */
const lostRace = "others were changing the same";

test(
  "requests of many people on the same things deadlock with nobody",
  async () => {
    const seed = Number(process.env.PINION_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
    process.stdout.write(`crossings: PINION_TEST_SEED=${seed}\n`);
    const replica = await startTestReplica(database.url, {
      PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}`,
    });
    const scene = new Scene(replica, createRandom(seed));
    for (const _ of few) await scene.addPerson();
    const done = new Map<string, number>();
    const faults: string[] = [];
    const endsAt = performance.now() + timeLimitMs;
    async function ask(): Promise<void> {
      while (performance.now() < endsAt) {
        const [name, request] = scene.random.pick(Object.entries(requests));
        try {
          await request(scene);
          done.set(name, (done.get(name) ?? 0) + 1);
        } catch (error) {
          const { code, message } = ConnectError.from(error);
          if (!allowed.has(code) || message.includes(lostRace)) faults.push(`${name}: ${message}`);
        }
      }
    }
    await Promise.all(Array.from({ length: callers }, ask));
    expect(faults, `seed ${seed}`).toEqual([]);
    // A request that never succeeds crosses nothing.
    expect(Object.keys(requests).filter((name) => !done.has(name) && isLong)).toEqual([]);
    process.stdout.write(`crossings: ${JSON.stringify(Object.fromEntries(done))}\n`);
  },
  timeLimitMs + 60_000,
);
