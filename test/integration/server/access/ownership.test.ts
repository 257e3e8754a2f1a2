/**
 * Ownership of devices: the rights of a second person of the org on the device, without a grant and
 * with each grant.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { beforeAll, expect, test, vi } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { OutputStream, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import * as agents from "../../../../src/store/agents/agents.ts";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice, type Identity } from "../../../support/device.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one");

const { USE, MANAGE, READ } = GrantPermission;
const secretWord = "the-answer-is-0815";

type Clients = ReturnType<typeof createClients>;
type Person = { userId: string; token: string; clients: Clients };

let owner: Clients;
/** A member of the org who owns a device. */
let ada: Person;
/** Another member. */
let bea: Person;
let device: Identity;
let peopleCount = 0;

function as(token: string): Clients {
  return createClients({ url: replicas.one.url, token });
}

async function addMember(role = MemberRole.MEMBER): Promise<Person> {
  peopleCount += 1;
  const scopes = ["read", "write"];
  const email = `person-${peopleCount}@example.org`;
  const { member, secret } = await owner.orgs.addMember({ email, role, tokenScopes: scopes });
  return { userId: member!.userId, token: secret, clients: as(secret) };
}

beforeAll(async () => {
  owner = replicas.one.clients;
  ada = await addMember();
  bea = await addMember();
  device = await enrolDevice(ada.clients, "ada's laptop");
});

const to = (person: Person) => ({ kind: { case: "userId" as const, value: person.userId } });
const everyone = { kind: { case: "everyone" as const, value: true as const } };

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "ok",
    (error) => Code[ConnectError.from(error).code] ?? "?",
  );
}

async function kindsOf(kinds: string[]): Promise<string[]> {
  const { events } = await owner.events.listEvents({ kinds, pageSize: 50 });
  return events.map(({ kind, data }) => `${kind} ${data?.permission ?? ""}`.trim()).reverse();
}

/** A run on a new device of Ada's that printed the secret in every output of a run. */
async function runWithSecrets() {
  const identity = await enrolDevice(ada.clients);
  const stream = await connect(replicas.one.url, identity);
  const started = await startWork(ada.clients, identity);
  const attempt = await takeOn(stream);
  stream.send({
    case: "complete",
    value: {
      workId: attempt.workId,
      attemptToken: attempt.attemptToken,
      outcome: Outcome.FAILED,
      output: `out ${secretWord}`,
      resultText: `result ${secretWord}`,
      reason: `exit 1: ${secretWord}`,
      notes: [`note ${secretWord}`],
      sessionId: `session-${secretWord}`,
      stopReason: secretWord,
    },
  });
  await stream.next("completionAck");
  const completed = await startWork(ada.clients, identity);
  await stream.complete(await takeOn(stream), `window ${secretWord}`);
  return { identity, stream, failed: started.id, completed: completed.id, watcherId: completed.watcherId };
}

const textOf = (value: unknown) =>
  JSON.stringify(value, (_key, inner) => (typeof inner === "bigint" ? String(inner) : inner)) ?? "";

test("without a grant a member sees that there are devices, watchers and runs, and nothing of what they said", async () => {
  const { failed, completed, identity, watcherId } = await runWithSecrets();
  const { clients } = bea;
  const { run } = await clients.runs.getRun({ runId: failed });
  expect(run).toMatchObject({ status: RunStatus.FAILED, outputTail: "", result: "", outputHidden: true });
  expect((await ada.clients.runs.getRun({ runId: failed })).run).toMatchObject({
    outputTail: `out ${secretWord}`,
    outputHidden: false,
  });
  const seen = {
    run,
    runs: await clients.runs.listRuns({ deviceId: identity.deviceId }),
    explained: await clients.runs.explainRun({ runId: failed }),
    windows: await clients.runs.listWindows({ watcherId }),
    device: await clients.fleet.getDevice({ deviceId: identity.deviceId }),
    devices: await clients.fleet.listDevices({ includeLastRun: true }),
    watchers: await clients.watchers.listWatchers({ includeRecentRuns: true }),
    events: await clients.events.listEvents({ runId: failed }),
  };
  expect(seen.windows.windows).toMatchObject([{ runId: completed, outputHidden: true }]);
  expect(seen.runs.runs).toHaveLength(2);
  expect(seen.events.events.map(({ kind }) => kind)).toContain("run.failed");
  for (const [what, answer] of Object.entries(seen)) {
    expect([what, textOf(answer).includes(secretWord)]).toEqual([what, false]);
  }
  // The owner's view contains the secret, so there was a secret to hide.
  const asAda = [
    await ada.clients.runs.explainRun({ runId: failed }),
    await ada.clients.runs.listWindows({ watcherId }),
    await ada.clients.events.listEvents({ runId: failed }),
  ];
  for (const answer of asAda) expect(textOf(answer)).toContain(secretWord);
  const closed = [
    () => clients.runs.getTranscript({ runId: failed }),
    () => clients.runs.retryRun({ runId: failed }),
    async () => {
      for await (const update of clients.runs.watchRun({ runId: failed })) expect(update).toBeUndefined();
    },
  ];
  for (const call of closed) expect(await codeOf(call())).toBe("PermissionDenied");
});

test("nobody else reads a run's live output, and who may read it loses it within seconds of the grant", async () => {
  const identity = await enrolDevice(ada.clients);
  const stream = await connect(replicas.one.url, identity);
  const run = await startWork(ada.clients, identity);
  const { workId, attemptToken } = await takeOn(stream);
  const watch = async (person: Person, chunks: string[]) => {
    for await (const { update } of person.clients.runs.watchRun({ runId: run.id })) {
      if (update.case === "output") chunks.push(Buffer.from(update.value.data).toString());
    }
  };
  expect(await codeOf(watch(bea, []))).toBe("PermissionDenied");
  await ada.clients.fleet.grantDevice({
    deviceId: identity.deviceId,
    grantee: to(bea),
    permissions: [READ],
  });
  const chunks: string[] = [];
  const watching = codeOf(watch(bea, chunks));
  let sequence = 0n;
  const say = () => {
    sequence += 1n;
    const data = Buffer.from(`chunk ${sequence}`);
    stream.send({
      case: "output",
      value: { workId, attemptToken, sequence, stream: OutputStream.STDOUT, data },
    });
  };
  await vi.waitFor(() => {
    say();
    expect(chunks.length).toBeGreaterThan(0);
  });
  await ada.clients.fleet.revokeGrant({ deviceId: identity.deviceId, grantee: to(bea) });
  const talking = setInterval(say, 100);
  expect(await watching).toBe("PermissionDenied");
  clearInterval(talking);
});

test("a run that is placed on a device while a person watches it shows the person nothing of the device, also once it waits again", async () => {
  const identity = await enrolDevice(ada.clients);
  await ada.clients.fleet.labelDevice({ deviceId: identity.deviceId, add: ["placed-late"] });
  const { watcher } = await ada.clients.watchers.createWatcher({
    spec: { name: "Placed late", prompt: "x", selector: '"placed-late" in labels', maxAttempts: 2 },
  });
  const { run } = await ada.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  const seen = { ada: "", bea: "", late: "" };
  const watch = async (person: Person, name: keyof typeof seen) => {
    for await (const { update } of person.clients.runs.watchRun({ runId: run!.id })) {
      if (update.case === "output") seen[name] += `[${Buffer.from(update.value.data).toString()}]`;
      if (update.case === "activity") seen[name] += textOf(update.value.activity);
    }
  };
  for (const [person, name] of [
    [ada, "ada"],
    [bea, "bea"],
  ] as const)
    watch(person, name).catch(() => {});
  const stream = await connect(replicas.one.url, identity);
  const attempt = await takeOn(stream);
  const name = { workId: attempt.workId, attemptToken: attempt.attemptToken };
  const data = Buffer.from(`live ${secretWord}`);
  stream.send({ case: "output", value: { ...name, sequence: 1n, stream: OutputStream.STDOUT, data } });
  await vi.waitFor(() => expect([seen.ada, seen.bea]).toEqual([`[live ${secretWord}]`, "[]"]));
  stream.send({ case: "complete", value: { ...name, outcome: Outcome.FAILED } });
  await stream.next("completionAck");
  watch(bea, "late").catch(() => {});
  await vi.waitFor(() => expect(seen.late).toBe("[]"));
});

test("a member neither pins to, triggers, edits, pauses, backfills nor deletes what is another's, until granted to use it", async () => {
  const { watcher } = await ada.clients.watchers.createWatcher({
    spec: { name: "Ada's", prompt: "p", deviceId: device.deviceId, schedule: "0 9 * * *" },
  });
  const watcherId = watcher!.id;
  const mine = await bea.clients.watchers.createWatcher({ spec: { name: "Bea's", prompt: "p" } });
  const spec = { name: "x", prompt: "x", deviceId: device.deviceId };
  const deeds = (slug: string): [string, () => Promise<unknown>][] => {
    const { watchers } = bea.clients;
    return [
      ["pin a new one", () => watchers.createWatcher({ slug, spec })],
      ["pin a new one, rehearsed", () => watchers.createWatcher({ slug: `${slug}-2`, spec, dryRun: true })],
      [
        "pin an old one",
        () =>
          watchers.updateWatcher({
            watcherId: mine.watcher!.id,
            spec,
            updateMask: { paths: ["device_id"] },
          }),
      ],
      ["edit", () => watchers.updateWatcher({ watcherId, spec, updateMask: { paths: ["prompt"] } })],
      [
        "edit by its slug",
        () => watchers.updateWatcher({ watcherId: watcher!.slug, spec, updateMask: { paths: ["name"] } }),
      ],
      ["pause", () => watchers.pauseWatcher({ watcherId })],
      ["resume", () => watchers.resumeWatcher({ watcherId })],
      ["trigger", () => watchers.triggerWatcher({ watcherId })],
      ["trigger by its slug", () => watchers.triggerWatcher({ watcherId: watcher!.slug })],
    ];
  };
  const outcomes = async (slug: string) => {
    const codes: Record<string, string> = {};
    for (const [name, deed] of deeds(slug)) codes[name] = await codeOf(deed());
    return codes;
  };
  expect(new Set(Object.values(await outcomes("without")))).toEqual(new Set(["PermissionDenied"]));
  expect(await codeOf(bea.clients.watchers.deleteWatcher({ watcherId }))).toBe("PermissionDenied");
  // To manage and to read is not to use.
  await ada.clients.fleet.grantDevice({
    deviceId: device.deviceId,
    grantee: to(bea),
    permissions: [MANAGE, READ],
  });
  expect(new Set(Object.values(await outcomes("others")))).toEqual(new Set(["PermissionDenied"]));
  await ada.clients.fleet.grantDevice({ deviceId: device.deviceId, grantee: to(bea), permissions: [USE] });
  expect(new Set(Object.values(await outcomes("with")))).toEqual(new Set(["ok"]));
  expect(await codeOf(bea.clients.watchers.deleteWatcher({ watcherId }))).toBe("ok");
  const error = await bea.clients.fleet.deleteDevice({ deviceId: device.deviceId }).catch((it) => it);
  expect(ConnectError.from(error)).toMatchObject({ code: Code.PermissionDenied });
  await ada.clients.fleet.revokeGrant({ deviceId: device.deviceId, grantee: to(bea) });
});

test("renaming and disconnecting need a grant to manage, granting is the owner's, and events tell it all", async () => {
  const identity = await enrolDevice(ada.clients, "to be managed");
  const { deviceId } = identity;
  const rename = () =>
    bea.clients.fleet.updateDevice({ deviceId, label: "bea's now", updateMask: { paths: ["label"] } });
  await expect(rename()).rejects.toThrow(/to be managed.*is person-\d+@example.org's.*--manage/s);
  expect(await codeOf(bea.clients.fleet.disconnectDevice({ deviceId }))).toBe("PermissionDenied");
  const grant = { deviceId, grantee: to(bea), permissions: [MANAGE] };
  expect(await codeOf(bea.clients.fleet.grantDevice(grant))).toBe("PermissionDenied");
  expect((await bea.clients.fleet.getDevice({ deviceId })).device!.allowed).toEqual([]);
  const before = (await kindsOf(["device.grant"])).length;
  const first = await ada.clients.fleet.grantDevice(grant);
  expect(await ada.clients.fleet.grantDevice(grant)).toEqual(first);
  expect((await bea.clients.fleet.getDevice({ deviceId })).device!.allowed).toEqual([MANAGE]);
  await rename();
  await rename();
  expect((await bea.clients.fleet.listGrants({ deviceId })).grants).toMatchObject([
    { permission: MANAGE, deviceLabel: "bea's now", firstUsedAt: { nanos: expect.any(Number) } },
  ]);
  // The grantee may give up their own grant, and no other grant.
  expect(await codeOf(bea.clients.fleet.revokeGrant({ deviceId, grantee: everyone }))).toBe(
    "PermissionDenied",
  );
  await bea.clients.fleet.revokeGrant({ deviceId, grantee: to(bea) });
  expect(await codeOf(rename())).toBe("PermissionDenied");
  expect(await codeOf(ada.clients.fleet.revokeGrant({ deviceId, grantee: to(bea) }))).toBe("NotFound");
  expect((await kindsOf(["device.grant"])).slice(before)).toEqual([
    "device.granted manage",
    "device.grant_used manage",
    "device.grant_revoked manage",
  ]);
});

test("what stood on a grant is paused with the reason when it is taken back, its runs end, and the owner may resume it", async () => {
  const identity = await enrolDevice(ada.clients, "lent");
  const { deviceId } = identity;
  const schedule = "0 9 * * *";
  const spec = { prompt: "p", deviceId, schedule };
  await ada.clients.fleet.grantDevice({ deviceId, grantee: everyone, permissions: [USE] });
  const adas = await ada.clients.watchers.createWatcher({ spec: { ...spec, name: "Ada's own" } });
  const beas = await bea.clients.watchers.createWatcher({ spec: { ...spec, name: "Bea's on it" } });
  const owners = await owner.watchers.createWatcher({ spec: { ...spec, name: "The admin's" } });
  const { run } = await bea.clients.watchers.triggerWatcher({ watcherId: beas.watcher!.id });
  const answer = await ada.clients.fleet.revokeGrant({ deviceId, grantee: everyone });
  expect(answer).toMatchObject({ watchersPaused: 1, runsCancelled: 1 });
  const stateOf = async ({ watcher }: { watcher?: { id: string } | undefined }) =>
    (await owner.watchers.getWatcher({ watcherId: watcher!.id })).watcher!;
  expect(await stateOf(adas)).toMatchObject({ status: WatcherStatus.ACTIVE });
  expect(await stateOf(owners)).toMatchObject({ status: WatcherStatus.ACTIVE });
  expect(await stateOf(beas)).toMatchObject({
    status: WatcherStatus.PAUSED,
    pausedReason: expect.stringMatching(/may not use device "lent" any more; its owner/),
  });
  expect((await owner.runs.getRun({ runId: run!.id })).run).toMatchObject({
    status: RunStatus.CANCELLED,
    reason: expect.stringContaining("taken back"),
  });
  const { events } = await owner.events.listEvents({ kinds: ["watcher.paused"], pageSize: 1 });
  expect(events).toMatchObject([{ watcherId: beas.watcher!.id, actor: `user:${ada.userId}`, deviceId }]);
  expect(await codeOf(bea.clients.watchers.resumeWatcher({ watcherId: beas.watcher!.id }))).toBe(
    "PermissionDenied",
  );
  await ada.clients.watchers.resumeWatcher({ watcherId: beas.watcher!.id });
  // The pin rests on Ada's right now: a grant to Bea that comes and goes does not affect the pin.
  await ada.clients.fleet.grantDevice({ deviceId, grantee: to(bea), permissions: [USE] });
  const again = await ada.clients.fleet.revokeGrant({ deviceId, grantee: to(bea) });
  expect(again.watchersPaused).toBe(0);
});

test("a watcher that is being pinned while the grant is taken back does not stand without it", async () => {
  const identity = await enrolDevice(ada.clients, "raced for");
  const { deviceId } = identity;
  await ada.clients.fleet.grantDevice({ deviceId, grantee: to(bea), permissions: [USE] });
  const { db } = database;
  const held = await db.startTransaction().execute();
  // Takes the grant back, and has not committed yet.
  await sql`select from device where id = ${deviceId} for update`.execute(held);
  await sql`delete from device_grant where device_id = ${deviceId}`.execute(held);
  const pinning = codeOf(
    bea.clients.watchers.createWatcher({ spec: { name: "Racing", prompt: "p", deviceId } }),
  );
  await vi.waitFor(async () => {
    const { rows } = await sql`select from pg_locks where not granted`.execute(db);
    expect(rows.length).toBeGreaterThan(0);
  });
  await held.commit().execute();
  expect(await pinning).toBe("PermissionDenied");
});

test("an admin of the org uses every device, and what stood on the role alone is paused with it", async () => {
  const admin = await addMember(MemberRole.ADMIN);
  const identity = await enrolDevice(ada.clients);
  const spec = { name: "By role", prompt: "p", deviceId: identity.deviceId };
  const { watcher } = await admin.clients.watchers.createWatcher({ spec });
  expect((await admin.clients.fleet.getDevice({ deviceId: identity.deviceId })).device!.allowed).toEqual([
    USE,
    MANAGE,
    READ,
  ]);
  const { members } = await owner.orgs.listMembers({});
  const { email } = members.find(({ userId }) => userId === admin.userId)!;
  await owner.orgs.addMember({ email, role: MemberRole.MEMBER });
  const found = await owner.watchers.getWatcher({ watcherId: watcher!.id });
  expect(found.watcher!.status).toBe(WatcherStatus.PAUSED);
  expect(await codeOf(admin.clients.watchers.triggerWatcher({ watcherId: watcher!.id }))).toBe(
    "PermissionDenied",
  );
});

test("who leaves the org leaves no watcher behind on somebody else's device", async () => {
  const guest = await addMember();
  const identity = await enrolDevice(ada.clients);
  const { deviceId } = identity;
  await ada.clients.fleet.grantDevice({ deviceId, grantee: to(guest), permissions: [USE] });
  const { watcher } = await guest.clients.watchers.createWatcher({
    spec: { name: "A guest's", prompt: "p", deviceId },
  });
  await owner.orgs.removeMember({ userId: guest.userId });
  const found = await owner.watchers.getWatcher({ watcherId: watcher!.id });
  expect(found.watcher).toMatchObject({ status: WatcherStatus.PAUSED });
  expect((await owner.fleet.listGrants({ deviceId })).grants).toEqual([]);
});

test("a service uses the devices that its token names, all if it says so, and by itself none", async () => {
  const one = await enrolDevice(ada.clients);
  const two = await enrolDevice(ada.clients);
  const pin = (clients: Clients, { deviceId }: Identity) =>
    codeOf(
      clients.watchers.createWatcher({ spec: { name: `P ${crypto.randomUUID()}`, prompt: "p", deviceId } }),
    );
  const make = async (clients: Clients, more: object) =>
    clients.tokens.createToken({ kind: TokenKind.SVC, label: "ci", scopes: ["read", "write"], ...more });
  const none = as((await make(ada.clients, {})).secret);
  expect([await pin(none, one), await codeOf(none.watchers.listWatchers({}))]).toEqual([
    "PermissionDenied",
    "ok",
  ]);
  const named = await make(ada.clients, { deviceIds: [one.deviceId] });
  const service = as(named.secret);
  expect([await pin(service, one), await pin(service, two)]).toEqual(["ok", "PermissionDenied"]);
  // A person cannot grant access to devices of others.
  expect(await codeOf(make(bea.clients, { deviceIds: [one.deviceId] }))).toBe("PermissionDenied");
  expect(await codeOf(make(ada.clients, { allDevices: true }))).toBe("PermissionDenied");
  expect(await codeOf(make(ada.clients, { kind: TokenKind.PAT, deviceIds: [one.deviceId] }))).toBe(
    "InvalidArgument",
  );
  const all = await make(owner, { allDevices: true });
  expect(all.token!.allDevices).toBe(true);
  expect(await pin(as(all.secret), two)).toBe("ok");
  // Nor by rotating another person's token.
  for (const { token } of [named, all]) {
    expect(await codeOf(bea.clients.tokens.rotateToken({ tokenId: token!.id }))).toBe("PermissionDenied");
  }
  const successor = await service.tokens.rotateToken({ tokenId: named.token!.id });
  expect(await pin(as(successor.secret), one)).toBe("ok");
  const { grants } = await ada.clients.fleet.listGrants({ deviceId: one.deviceId });
  expect(grants.filter(({ grantee }) => grantee!.kind.value === successor.token!.id)).toHaveLength(3);
  // The revocation includes the predecessor's watchers, which rest on the successor's grant.
  const answer = await ada.clients.fleet.revokeGrant({
    deviceId: one.deviceId,
    grantee: { kind: { case: "tokenId", value: successor.token!.id } },
  });
  expect(answer.watchersPaused).toBe(2);
});

test("turns of an agent on somebody's device are theirs to start and to read, and a conversation's snapshot, too", async () => {
  const identity = await enrolDevice(ada.clients);
  const { db } = database;
  await agents.ensure(db, { orgId: "local", agentId: "on-adas", name: "A", ownerId: null, settings: {} });
  await sql`update agent set device_id = ${identity.deviceId} where id = 'on-adas'`.execute(db);
  const ask = (clients: Clients, messageId: string) =>
    clients.turns.startTurn({ agentId: "on-adas", userId: "ada", messageId, input: `say ${secretWord}` });
  expect(await codeOf(ask(bea.clients, "m0"))).toBe("PermissionDenied");
  const { turn } = await ask(ada.clients, "m1");
  const { conversationId, id: turnId } = turn!;
  const seen = await bea.clients.turns.listTurns({ agentId: "on-adas" });
  expect(seen.turns).toMatchObject([{ id: turnId, input: "" }]);
  const { turns } = bea.clients;
  const codes = [
    await codeOf(turns.cancelTurn({ turnId })),
    await codeOf(turns.getConversation({ conversationId, includeSnapshot: true })),
    await codeOf(turns.getConversation({ conversationId })),
    await codeOf(turns.deleteConversation({ conversationId })),
    await codeOf(
      (async () => {
        for await (const update of turns.watchTurn({ turnId })) expect(update).toBeUndefined();
      })(),
    ),
  ];
  const no = "PermissionDenied";
  expect(codes).toEqual([no, no, "ok", no, no]);
});

test("what a deleted device's runs said stays its owner's to read, and nobody else's", async () => {
  const { identity, completed } = await runWithSecrets();
  await ada.clients.fleet.deleteDevice({ deviceId: identity.deviceId });
  const windowOf = async (clients: Clients) => textOf(await clients.runs.listWindows({ runId: completed }));
  expect(await windowOf(ada.clients)).toContain(secretWord);
  expect(await windowOf(owner)).toContain(secretWord);
  expect(await windowOf(bea.clients)).not.toContain(secretWord);
});

test("what a fleet worker did is the org's, also when the worker is gone", async () => {
  const { db } = database;
  const { secret } = await tokens.issue(db, {
    orgId: "local",
    kind: "svc",
    label: "worker",
    scopes: ["fleet:run"],
  });
  const worker: Identity = { deviceId: "", installId: crypto.randomUUID(), token: secret, label: "w" };
  const stream = await connect(replicas.one.url, worker);
  const { watcher } = await bea.clients.watchers.createWatcher({ spec: { name: "Fleet's", prompt: "p" } });
  const { run } = await bea.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await stream.complete(await takeOn(stream), `fleet ${secretWord}`);
  const third = await addMember();
  const seen = async () => textOf(await third.clients.runs.listWindows({ runId: run!.id }));
  expect(await seen()).toContain(secretWord);
  const { devices } = await owner.fleet.listDevices({ isWorker: true });
  expect(await codeOf(third.clients.fleet.deleteDevice({ deviceId: devices[0]!.id }))).toBe(
    "PermissionDenied",
  );
  stream.cancel();
  await owner.fleet.deleteDevice({ deviceId: devices[0]!.id });
  expect(await seen()).toContain(secretWord);
});
