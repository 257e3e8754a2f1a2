/** Every rpc of the .proto files, called with every kind of credential through a real replica. */
import { randomUUID } from "node:crypto";
import type { DescMethod } from "@bufbuild/protobuf";
import { sql } from "kysely";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { nameOf, rules } from "../../../../src/server/access/rules.ts";
import * as agents from "../../../../src/store/agents/agents.ts";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { newToken } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice, type Identity } from "../../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { addDevice, addTenant, type Tenant } from "../../../support/tenants.ts";
import * as everyRpc from "./every-rpc.ts";
import { methods, requestsAbout, shortName, textOf } from "./every-rpc.ts";

/**
 * The required permission of each rpc, written a second time and independently of
 * src/server/access/rules.ts: a new rpc, or an rpc with a weaker requirement, fails here until a
 * person has reviewed the change.
 */
const needs: Record<string, "nothing" | "device" | "executor" | "read" | "write" | "admin"> = {
  "DeviceService/Connect": "executor",
  "DeviceService/Enroll": "nothing",
  "DeviceService/CompleteRun": "executor",
  "DeviceService/TriggerWatcher": "device",
  "DeviceService/ListMyWatchers": "device",
  "WatcherService/CreateWatcher": "write",
  "WatcherService/GetWatcher": "read",
  "WatcherService/ListWatchers": "read",
  "WatcherService/UpdateWatcher": "write",
  "WatcherService/DeleteWatcher": "write",
  "WatcherService/PauseWatcher": "write",
  "WatcherService/ResumeWatcher": "write",
  "WatcherService/TriggerWatcher": "write",
  "WatcherService/PreviewSchedule": "read",
  "WatcherService/BackfillWatcher": "write",
  "WatcherService/ListWatcherRevisions": "read",
  "RunService/GetRun": "read",
  "RunService/ListRuns": "read",
  "RunService/CancelRun": "write",
  "RunService/StartBulkOperation": "write",
  "RunService/GetBulkOperation": "read",
  "RunService/ListBulkOperations": "read",
  "RunService/StopBulkOperation": "write",
  "RunService/RetryRun": "write",
  "RunService/WatchRun": "read",
  "RunService/ExplainRun": "read",
  "RunService/ListWindows": "read",
  "RunService/GetTranscript": "read",
  "RunService/SummarizeUsage": "read",
  "RunService/SummarizeRuns": "read",
  "RunService/SearchRuns": "read",
  "RunService/ListQuestions": "read",
  "RunService/AnswerQuestion": "write",
  "TurnService/StartTurn": "write",
  "TurnService/GetTurn": "read",
  "TurnService/WatchTurn": "read",
  "TurnService/ListTurns": "read",
  "TurnService/CancelTurn": "write",
  "TurnService/GetConversation": "read",
  "TurnService/ListConversations": "read",
  "TurnService/DeleteConversation": "write",
  "FleetService/ListDevices": "read",
  "FleetService/GetDevice": "read",
  "FleetService/UpdateDevice": "write",
  "FleetService/LabelDevice": "write",
  "FleetService/DeleteDevice": "write",
  "FleetService/DisconnectDevice": "write",
  "FleetService/GetDeviceLog": "read",
  "FleetService/CreateJoinCode": "write",
  "FleetService/GrantDevice": "write",
  "FleetService/RevokeGrant": "write",
  "FleetService/ListGrants": "read",
  "AgentService/CreateAgent": "admin",
  "AgentService/GetAgent": "read",
  "AgentService/ListAgents": "read",
  "AgentService/ListAgentRevisions": "read",
  "AgentService/UpdateAgentSettings": "admin",
  "AgentService/DeleteAgent": "admin",
  "AgentService/UpsertPlatform": "admin",
  "AgentService/BatchUpsertPlatforms": "admin",
  "AgentService/ListPlatforms": "read",
  "AgentService/DeletePlatform": "admin",
  "AgentService/StartPlatform": "admin",
  "AgentService/StopPlatform": "admin",
  "TokenService/CreateToken": "write",
  "TokenService/ListTokens": "read",
  "TokenService/RevokeToken": "write",
  "TokenService/RotateToken": "write",
  "SignInService/GetSignInOptions": "nothing",
  "SignInService/CreateSignInLink": "write",
  "SignInService/SignIn": "nothing",
  "SignInService/SignOut": "read",
  "SignInService/GetCaller": "read",
  "SignInService/ListSignIns": "read",
  "SignInService/EndSignIn": "write",
  "SignInService/StartLogin": "nothing",
  "SignInService/FinishLogin": "nothing",
  "SignInService/GetLogin": "write",
  "SignInService/DecideLogin": "write",
  "OrgService/CreateOrg": "admin",
  "OrgService/GetOrg": "read",
  "OrgService/ListOrgs": "admin",
  "OrgService/ListSecrets": "read",
  "OrgService/AddMember": "admin",
  "OrgService/RemoveMember": "admin",
  "OrgService/ListMembers": "read",
  "HookService/CreateHook": "write",
  "HookService/GetHook": "read",
  "HookService/ListHooks": "read",
  "HookService/UpdateHook": "write",
  "HookService/DeleteHook": "write",
  "HookService/RotateHookSecret": "write",
  "HookService/ListHookDeliveries": "read",
  "HookService/GetHookDelivery": "read",
  "HookService/ReplayHookDelivery": "write",
  "DestinationService/CreateDestination": "admin",
  "DestinationService/GetDestination": "read",
  "DestinationService/ListDestinations": "read",
  "DestinationService/UpdateDestination": "admin",
  "DestinationService/DeleteDestination": "admin",
  "DestinationService/RotateDestinationSecret": "admin",
  "DestinationService/TestDestination": "admin",
  "DestinationService/ListDeliveries": "read",
  "DestinationService/ReplayDeliveries": "admin",
  "EventService/WatchEvents": "read",
  "EventService/ListEvents": "read",
};

/** The needs met by each scope alone. */
const lets: Record<string, readonly string[]> = {
  // The runs that a fleet worker may receive are tested in fleet-worker.test.ts.
  "fleet:run": ["executor"],
  // In a service's token, the scope does not make the service a device.
  "device:run": [],
  read: ["read"],
  write: ["read", "write"],
  admin: ["read", "write", "admin"],
};

/** The needs met by a device's own token. */
const isForDevices = (name: string) => needs[name] === "device" || needs[name] === "executor";

const database = useDatabase({ per: "file" });
let replica: TestReplica;
/** The org, the device and the resources of the requests. */
let mine: { orgId: string; device: Identity; ids: Record<string, string> };
let other: Tenant;
let otherDevice: Identity;

beforeAll(async () => {
  replica = await openTestReplica(database.url, {
    // Most of the following calls are refused, from one address.
    PINION_FAILURES_PER_ADDRESS: "0",
  });
  const { db } = database;
  const { clients } = replica;
  const device = await enrolDevice(clients, "mine");
  const second = await enrolDevice(clients, "the second");
  const { watcher } = await clients.watchers.createWatcher({
    slug: "secret-watcher",
    spec: { name: "Secret", prompt: "p", deviceId: device.deviceId },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await agents.ensure(db, {
    orgId: "local",
    agentId: "secret-agent",
    name: "Secret",
    ownerId: null,
    settings: {},
  });
  await sql`
    insert into platform (org_id, stable_id, agent_id, kind, status)
    values ('local', 'secret-platform', 'secret-agent', 'webhook', 'stopped')`.execute(db);
  const { rows: hooked } = await sql<{ id: string }>`
    insert into hook (org_id, slug, watcher_id, kind, secret, created_by)
    values ('local', 'secret-hook', ${watcher!.id}, 'bearer', 'enc:v1:none', 'pinion') returning id`.execute(
    db,
  );
  const { rows: posted } = await sql<{ id: string }>`
    insert into hook_delivery (org_id, hook_id, outcome, body_bytes, body)
    values ('local', ${hooked[0]!.id}, 'filtered', 2, '{}') returning id`.execute(db);
  const { rows: sent } = await sql<{ id: string }>`
    insert into destination (org_id, slug, name, kind, config)
    values ('local', 'secret-destination', 'x', 'webhook', '{"url": "https://example.org"}') returning id`.execute(
    db,
  );
  const { rows: delivered } = await sql<{ id: string }>`
    insert into delivery (org_id, destination_id, lane, kind, state, ended_at)
    values ('local', ${sent[0]!.id}, gen_random_uuid(), 'device.away', 'dead', now()) returning id`.execute(
    db,
  );
  const spoken = { agentId: "secret-agent", userId: "ada", messageId: "m1", input: "secret" };
  const { turn } = await clients.turns.startTurn(spoken);
  const { member } = await clients.orgs.addMember({ email: "ada@example.org", role: 3 });
  const { token } = await tokens.issue(db, {
    orgId: "local",
    kind: "svc",
    label: "secret-token",
    scopes: ["read"],
  });
  const { signIn } = await clients.signIns.signIn({ credential: { case: "token", value: replica.token } });
  mine = {
    orgId: "local",
    device,
    ids: {
      watcher: watcher!.id,
      run: run!.id,
      turn: turn!.id,
      conversation: turn!.conversationId,
      device: device.deviceId,
      agent: "secret-agent",
      platform: "secret-platform",
      hook: hooked[0]!.id,
      hookDelivery: posted[0]!.id,
      destination: sent[0]!.id,
      delivery: delivered[0]!.id,
      token: token.id,
      member: member!.userId,
      signIn: signIn!.id,
    },
  };
  otherDevice = second;
  other = await addTenant(db, "globex");
});
afterAll(() => replica.stop());

const call = (method: DescMethod, secret: string | undefined, request: object = {}) =>
  everyRpc.call(replica.url, method, secret, request);

/** Whether the guard admitted a call; errors about the empty request come after the guard. */
const isIn = (code: string) => code !== "Unauthenticated" && code !== "PermissionDenied";

async function issue(scopes: string[], orgId = "local"): Promise<string> {
  return (await tokens.issue(database.db, { orgId, kind: "svc", label: "x", scopes })).secret;
}

test("every rpc has a rule, here and in the guard, and is served", async () => {
  expect(methods.map(shortName).sort()).toEqual(Object.keys(needs).sort());
  const known = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
  ];
  expect(Object.keys(rules).sort()).toEqual([...methods.map(nameOf), ...known].sort());
  const open = Object.entries(rules).filter(([, rule]) => rule.needs === "no token");
  const unasked = [
    "pinion.v1.DeviceService/Enroll",
    "pinion.v1.SignInService/FinishLogin",
    "pinion.v1.SignInService/GetSignInOptions",
    "pinion.v1.SignInService/SignIn",
    "pinion.v1.SignInService/StartLogin",
  ];
  expect(open.map(([name]) => name).sort()).toEqual([...unasked, ...known].sort());
  const answers = await Promise.all(methods.map((method) => call(method, replica.token)));
  expect(methods.filter((_, i) => answers[i]!.code === "Unimplemented").map(shortName)).toEqual([]);
});

test("no token, a wrong checksum, an unknown, an expired or a revoked one: unauthenticated, everywhere", async () => {
  const { db } = database;
  const scopes = ["read", "write", "admin", "fleet:run"];
  const expired = await tokens.issue(db, { orgId: "local", kind: "svc", label: "x", scopes });
  await sql`update token set expires_at = now() - interval '1 second' where id = ${expired.token.id}`.execute(
    db,
  );
  const revoked = await tokens.issue(db, { orgId: "local", kind: "svc", label: "x", scopes });
  await tokens.revoke(db, { orgId: "local", tokenId: revoked.token.id, actor: "pinion" });
  const lastLetter = replica.token.at(-1) === "0" ? "1" : "0";
  const credentials = {
    none: undefined,
    "wrong checksum": replica.token.slice(0, -1) + lastLetter,
    unknown: newToken("pat"),
    "unknown device": newToken("dev"),
    expired: expired.secret,
    revoked: revoked.secret,
  };
  for (const [name, secret] of Object.entries(credentials)) {
    for (const method of methods.filter((it) => needs[shortName(it)] !== "nothing")) {
      expect([name, shortName(method), (await call(method, secret)).code]).toEqual([
        name,
        shortName(method),
        "Unauthenticated",
      ]);
    }
  }
});

test("each scope by itself reaches what it names, and nothing stronger", async () => {
  for (const [scope, allowed] of Object.entries(lets)) {
    const secret = await issue([scope]);
    for (const method of methods.filter((it) => needs[shortName(it)] !== "nothing")) {
      const { code } = await call(method, secret);
      const expected = allowed.includes(needs[shortName(method)]!);
      // CreateOrg needs more than a scope, but a service of the operator's org may call it.
      expect([scope, shortName(method), isIn(code) ? "in" : code]).toEqual([
        scope,
        shortName(method),
        expected ? "in" : "PermissionDenied",
      ]);
    }
  }
});

test("a device's token reaches the rpcs of devices, and a person's does not", async () => {
  for (const method of methods.filter((it) => needs[shortName(it)] !== "nothing")) {
    const isDevices = isForDevices(shortName(method));
    const asDevice = (await call(method, otherDevice.token)).code;
    const asOwner = (await call(method, replica.token)).code;
    expect([shortName(method), isIn(asDevice)]).toEqual([shortName(method), isDevices]);
    expect([shortName(method), isIn(asOwner)]).toEqual([shortName(method), !isDevices]);
  }
});

test("for another org's admin, and its device, nothing of this org exists", async () => {
  const foreignDevice = await addDevice(database.db, other);
  const requests = requestsAbout(mine.ids);
  expect(Object.keys(requests).sort()).toEqual(Object.keys(needs).sort());
  const before = await database.db.selectFrom("event").select("seq").where("org_id", "=", "local").execute();
  for (const method of methods) {
    const name = shortName(method);
    if (needs[name] === "nothing") continue;
    const request = requests[name]!;
    const secret = isForDevices(name) ? foreignDevice.secret : other.secret;
    const { code, answer } = await call(method, secret, request === "names nothing" ? {} : request);
    if (request !== "names nothing") expect([name, code]).toEqual([name, "NotFound"]);
    const seen = textOf(answer);
    for (const id of Object.values(mine.ids)) expect([name, seen.includes(id)]).toEqual([name, false]);
  }
  const after = await database.db.selectFrom("event").select("seq").where("org_id", "=", "local").execute();
  expect(after).toEqual(before);
  expect((await replica.clients.fleet.getDevice({ deviceId: mine.ids.device! })).device!.label).toBe("mine");
});

test("a fleet worker, of this org or of another one, is no device of this org and completes nothing of its devices", async () => {
  const requests = requestsAbout(mine.ids);
  const hello = { installId: mine.device.installId, os: 2, maxConcurrency: 1 };
  const codesAs = async (secret: string) => {
    const codes: Record<string, string> = {};
    for (const method of methods.filter((it) => isForDevices(shortName(it)))) {
      const name = shortName(method);
      const about = requests[name]!;
      const request =
        name === "DeviceService/Connect"
          ? { message: { case: "hello", value: hello } }
          : about === "names nothing"
            ? {}
            : about;
      const { code, answer } = await call(method, secret, request);
      codes[name] = code;
      for (const id of Object.values(mine.ids))
        expect([name, textOf(answer).includes(id)]).toEqual([name, false]);
    }
    return codes;
  };
  const expected = {
    "DeviceService/Connect": "PermissionDenied",
    "DeviceService/CompleteRun": "NotFound",
    "DeviceService/TriggerWatcher": "PermissionDenied",
    "DeviceService/ListMyWatchers": "PermissionDenied",
  };
  expect(await codesAs(await issue(["fleet:run"]))).toEqual(expected);
  // The installation does not exist in the caller's own org: there it becomes a new, separate
  // worker.
  expect(await codesAs(await issue(["fleet:run"], "globex"))).toEqual({
    ...expected,
    "DeviceService/Connect": "ok",
  });
});

test("only the operator's org makes orgs", async () => {
  const asked = { orgId: "acme", name: "Acme", ownerEmail: "ada@acme.example" };
  const method = methods.find((it) => shortName(it) === "OrgService/CreateOrg")!;
  expect((await call(method, other.secret, asked)).code).toBe("PermissionDenied");
  expect((await call(method, await issue(["write"]), asked)).code).toBe("PermissionDenied");
  expect((await call(method, replica.token, asked)).code).toBe("ok");
  expect((await call(method, replica.token, asked)).code).toBe("AlreadyExists");
});

test("another device of the same org sees, triggers and completes nothing of the first one's", async () => {
  const requests = requestsAbout(mine.ids);
  const codes: Record<string, string> = {};
  for (const method of methods.filter((it) => isForDevices(shortName(it)))) {
    const name = shortName(method);
    const request =
      name === "DeviceService/Connect"
        ? {
            message: {
              case: "hello",
              value: {
                installId: mine.device.installId,
                os: 2,
                maxConcurrency: 1,
                agentKinds: ["test"],
              },
            },
          }
        : requests[name];
    const { code, answer } = await call(
      method,
      otherDevice.token,
      request === "names nothing" ? {} : (request as object),
    );
    codes[name] = code;
    expect([name, textOf(answer).includes(mine.ids.watcher!)]).toEqual([name, false]);
  }
  expect(codes).toEqual({
    "DeviceService/Connect": "PermissionDenied",
    "DeviceService/CompleteRun": "NotFound",
    "DeviceService/TriggerWatcher": "NotFound",
    "DeviceService/ListMyWatchers": "ok",
  });
});

/**
 * The rights of a member of the same org with read and write, without ownership of the device and
 * without a grant, on resources pinned to the device. Written a second time, like `needs`.
 */
const forSecondPerson: Record<string, "refused" | "shown" | "other scope" | "not there"> = {
  "WatcherService/CreateWatcher": "refused",
  "WatcherService/GetWatcher": "shown",
  "WatcherService/UpdateWatcher": "refused",
  "WatcherService/DeleteWatcher": "refused",
  "WatcherService/PauseWatcher": "refused",
  "WatcherService/ResumeWatcher": "refused",
  "WatcherService/TriggerWatcher": "refused",
  "WatcherService/PreviewSchedule": "shown",
  "WatcherService/BackfillWatcher": "refused",
  "WatcherService/ListWatcherRevisions": "shown",
  "RunService/GetRun": "shown",
  "RunService/ListRuns": "shown",
  "RunService/CancelRun": "refused",
  // Runs on another person's device are not counted.
  "RunService/StartBulkOperation": "shown",
  "RunService/RetryRun": "refused",
  "RunService/WatchRun": "refused",
  "RunService/ExplainRun": "shown",
  "RunService/ListWindows": "shown",
  "RunService/GetTranscript": "refused",
  "RunService/SummarizeUsage": "shown",
  "RunService/SummarizeRuns": "shown",
  "RunService/ListQuestions": "shown",
  "RunService/AnswerQuestion": "refused",
  "TurnService/StartTurn": "refused",
  "TurnService/GetTurn": "shown",
  "TurnService/WatchTurn": "refused",
  "TurnService/CancelTurn": "refused",
  "TurnService/GetConversation": "shown",
  "TurnService/DeleteConversation": "refused",
  "FleetService/GetDevice": "shown",
  "FleetService/UpdateDevice": "refused",
  "FleetService/LabelDevice": "refused",
  "FleetService/DeleteDevice": "refused",
  "FleetService/DisconnectDevice": "refused",
  "FleetService/GetDeviceLog": "refused",
  "FleetService/GrantDevice": "refused",
  "FleetService/RevokeGrant": "refused",
  "FleetService/ListGrants": "shown",
  "AgentService/GetAgent": "shown",
  "AgentService/ListAgentRevisions": "shown",
  "AgentService/UpdateAgentSettings": "other scope",
  "AgentService/DeleteAgent": "other scope",
  "AgentService/UpsertPlatform": "other scope",
  "AgentService/DeletePlatform": "other scope",
  "AgentService/StartPlatform": "other scope",
  "AgentService/StopPlatform": "other scope",
  "TokenService/RevokeToken": "shown",
  "TokenService/RotateToken": "refused",
  "HookService/CreateHook": "refused",
  "HookService/GetHook": "shown",
  "HookService/UpdateHook": "refused",
  "HookService/DeleteHook": "refused",
  "HookService/RotateHookSecret": "refused",
  "HookService/ListHookDeliveries": "shown",
  "HookService/GetHookDelivery": "refused",
  "HookService/ReplayHookDelivery": "refused",
  "DestinationService/GetDestination": "shown",
  "DestinationService/UpdateDestination": "other scope",
  "DestinationService/DeleteDestination": "other scope",
  "DestinationService/RotateDestinationSecret": "other scope",
  "DestinationService/TestDestination": "other scope",
  "DestinationService/ListDeliveries": "shown",
  "DestinationService/ReplayDeliveries": "other scope",
  "SignInService/EndSignIn": "not there",
  "OrgService/RemoveMember": "other scope",
};

const codeForSecondPerson = {
  refused: "PermissionDenied",
  "other scope": "PermissionDenied",
  shown: "ok",
  "not there": "NotFound",
};

test("a second person of the org does nothing to what is pinned to another's device, and reads nothing that was said there", async () => {
  const { db } = database;
  const { orgs, fleet } = replica.clients;
  const added = await orgs.addMember({ email: "bea@example.org", role: 3, tokenScopes: ["read", "write"] });
  const { ids } = mine;
  await sql`update agent set device_id = ${ids.device} where org_id = 'local' and id = 'secret-agent'`.execute(
    db,
  );
  await sql`update turn set device_id = ${ids.device} where id = ${ids.turn}`.execute(db);
  await fleet.grantDevice({
    deviceId: ids.device!,
    grantee: { kind: { case: "tokenId", value: ids.token! } },
    permissions: [3],
  });
  const requests = requestsAbout(ids);
  const named = Object.keys(requests).filter(
    (name) => requests[name] !== "names nothing" && !isForDevices(name),
  );
  expect(Object.keys(forSecondPerson).sort()).toEqual(named.sort());
  const stateOf = async () => ({
    watchers: await sql`select id, version, status, device_id from watcher order by id`.execute(db),
    devices: await sql`select id, label from device order by id`.execute(db),
    runs: await sql`select id, status, cancel_requested_at from run_all order by id`.execute(db),
    turns: await sql`select id, status, cancel_requested_at from turn_all order by id`.execute(db),
    agents: await sql`select id, version from agent order by id`.execute(db),
    grants: await sql`select id from device_grant order by id`.execute(db),
  });
  const before = textOf(await stateOf());
  for (const method of methods.filter((it) => named.includes(shortName(it)))) {
    const name = shortName(method);
    if (name === "TokenService/RevokeToken") continue;
    const { code, answer } = await call(method, added.secret, requests[name] as object);
    expect([name, code]).toEqual([name, codeForSecondPerson[forSecondPerson[name]!]]);
    if (name === "TurnService/GetTurn") expect(textOf(answer)).not.toContain('"input":"secret"');
  }
  expect(textOf(await stateOf())).toBe(before);
  // With a grant for each they are let in, by the same requests.
  await fleet.grantDevice({
    deviceId: ids.device!,
    grantee: { kind: { case: "userId", value: added.member!.userId } },
    permissions: [1, 2, 3],
  });
  const destroys = new Set(["WatcherService/DeleteWatcher", "TokenService/RevokeToken"]);
  for (const method of methods.filter((it) => forSecondPerson[shortName(it)] === "refused")) {
    const name = shortName(method);
    if (destroys.has(name)) continue;
    const { code } = await call(method, added.secret, requests[name] as object);
    const isOwners = /DeleteDevice|GrantDevice|RevokeGrant|RotateToken/.test(name);
    expect([name, code === "PermissionDenied"]).toEqual([name, isOwners]);
  }
});

/**
 * The rpcs that do not run under row-level security alone, each with its reason in
 * docs/security.md.
 */
const beyondOneOrg: Record<string, { request: object; code: string }> = {
  // Batched with completions of other orgs; the device's rights come from its token.
  "DeviceService/Connect": { request: {}, code: "InvalidArgument" },
  "DeviceService/CompleteRun": {
    request: {
      completion: {
        workId: "0190f5fe-7c00-7a00-8000-000000000002",
        attemptToken: "0190f5fe-7c00-7a00-8000-000000000001",
        outcome: 1,
      },
    },
    code: "NotFound",
  },
  // The join code names the org.
  "DeviceService/Enroll": {
    request: { joinCode: "NONE", installId: "x".repeat(16), os: 2, label: "x" },
    code: "Unauthenticated",
  },
  // Rpcs without a token, and the codes by which browsers and commands get a token, belong to no
  // org until used.
  "SignInService/GetSignInOptions": { request: {}, code: "ok" },
  "SignInService/CreateSignInLink": { request: {}, code: "ok" },
  "SignInService/SignIn": {
    request: { credential: { case: "linkCode", value: "none" } },
    code: "Unauthenticated",
  },
  "SignInService/StartLogin": { request: { clientName: "x" }, code: "ok" },
  "SignInService/FinishLogin": { request: { deviceCode: "none" }, code: "Unauthenticated" },
  "SignInService/GetLogin": { request: { userCode: "NONE" }, code: "NotFound" },
  "SignInService/DecideLogin": { request: { userCode: "NONE" }, code: "NotFound" },
  "OrgService/ListOrgs": { request: {}, code: "ok" },
  "OrgService/CreateOrg": { request: { orgId: "zeta", name: "Z", ownerEmail: "z@z.example" }, code: "ok" },
  "OrgService/AddMember": { request: { email: "z@z.example", role: 3 }, code: "ok" },
};

// The last test: it takes away a right of the role that every other test needs.
test("every rpc asks the database as the role that row-level security confines, but for those that are named", async () => {
  await sql`revoke all on all tables in schema public from pinion_server`.execute(database.db);
  const requests = requestsAbout(mine.ids);
  const reference = { kind: { case: "value", value: "secret://X" } };
  const ofNothing: Record<string, object> = {
    "AgentService/CreateAgent": { agentId: "x" },
    "AgentService/BatchUpsertPlatforms": { platforms: [requests["AgentService/UpsertPlatform"]] },
    "RunService/SearchRuns": { query: "word" },
    "RunService/GetBulkOperation": { operationId: randomUUID() },
    "RunService/StopBulkOperation": { operationId: randomUUID() },
    "DestinationService/CreateDestination": {
      slug: "x",
      spec: {
        name: "x",
        kind: { case: "slack", value: { access: { case: "webhookUrl", value: reference } } },
      },
    },
    "TokenService/CreateToken": { kind: TokenKind.PAT, label: "x", scopes: ["read"] },
  };
  for (const method of methods) {
    const name = shortName(method);
    const exception = beyondOneOrg[name];
    const secret = isForDevices(name) ? otherDevice.token : replica.token;
    const about = requests[name];
    const request =
      exception?.request ?? ofNothing[name] ?? (about === "names nothing" ? {} : (about as object));
    expect([name, (await call(method, secret, request)).code]).toEqual([name, exception?.code ?? "Internal"]);
  }
});
