/**
 * The requirement of every rpc: `rulesOf` compiles only if a service's table has a line for each of
 * its rpcs, and {@link requireRules} refuses to start with an rpc without a rule.
 */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { AgentService } from "#gen/pinion/v1/agent_pb.js";
import { DestinationService } from "#gen/pinion/v1/destination_pb.js";
import { DeviceService } from "#gen/pinion/v1/device_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { HookService } from "#gen/pinion/v1/hook_pb.js";
import { OrgService } from "#gen/pinion/v1/org_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { SignInService } from "#gen/pinion/v1/sign_in_pb.js";
import { TokenService } from "#gen/pinion/v1/token_pb.js";
import { TurnService } from "#gen/pinion/v1/turn_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import type { Scope } from "./principal.ts";

/** The requirement of an rpc. */
export type Rule =
  | { needs: "no token"; because: string }
  | { needs: "device token" }
  /** A device's own token, or a service's with the scope fleet:run. */
  | { needs: "executor token" }
  | { needs: "scope"; scope: Exclude<Scope, "device:run"> };

const device: Rule = { needs: "device token" };
const executor: Rule = { needs: "executor token" };
const read: Rule = { needs: "scope", scope: "read" };
const write: Rule = { needs: "scope", scope: "write" };
const admin: Rule = { needs: "scope", scope: "admin" };
const enrols: Rule = {
  needs: "no token",
  because: "the join code in the request is the credential; a daemon that enrols has no token yet",
};
const signsIn: Rule = {
  needs: "no token",
  because:
    "the code or token in the request is the credential; a browser or command that signs in has no other yet",
};
const offers: Rule = {
  needs: "no token",
  because: "says how one can sign in, which everybody may know; nothing of a tenant's",
};
const describes: Rule = {
  needs: "no token",
  because:
    "answers from the public .proto files, which hold no tenant's data; grpcurl and buf curl ask first",
};
const probes: Rule = {
  needs: "no token",
  because: "load balancers carry no token, and the answer says only whether this replica serves",
};

/** The rules of a service by fully qualified rpc; does not compile with an rpc left out. */
function rulesOf<Service extends DescService>(
  service: Service,
  table: Record<keyof Service["method"], Rule>,
): Record<string, Rule> {
  return Object.fromEntries(
    service.methods.map((method) => [nameOf(method), table[method.localName as keyof Service["method"]]]),
  );
}

/** "pinion.v1.RunService/GetRun", as in the path of a call. */
export function nameOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

/** The requirement of every rpc, by its fully qualified name. */
export const rules: Readonly<Record<string, Rule>> = {
  ...rulesOf(DeviceService, {
    connect: executor,
    enroll: enrols,
    completeRun: executor,
    triggerWatcher: device,
    listMyWatchers: device,
  }),
  ...rulesOf(WatcherService, {
    createWatcher: write,
    getWatcher: read,
    listWatchers: read,
    updateWatcher: write,
    deleteWatcher: write,
    pauseWatcher: write,
    resumeWatcher: write,
    triggerWatcher: write,
    previewSchedule: read,
    backfillWatcher: write,
    listWatcherRevisions: read,
  }),
  ...rulesOf(RunService, {
    getRun: read,
    listRuns: read,
    cancelRun: write,
    startBulkOperation: write,
    getBulkOperation: read,
    listBulkOperations: read,
    stopBulkOperation: write,
    retryRun: write,
    watchRun: read,
    explainRun: read,
    listWindows: read,
    getTranscript: read,
    summarizeUsage: read,
    summarizeRuns: read,
    searchRuns: read,
    listQuestions: read,
    answerQuestion: write,
  }),
  ...rulesOf(TurnService, {
    startTurn: write,
    getTurn: read,
    watchTurn: read,
    listTurns: read,
    cancelTurn: write,
    getConversation: read,
    listConversations: read,
    deleteConversation: write,
  }),
  ...rulesOf(FleetService, {
    listDevices: read,
    getDevice: read,
    updateDevice: write,
    labelDevice: write,
    deleteDevice: write,
    disconnectDevice: write,
    getDeviceLog: read,
    createJoinCode: write,
    grantDevice: write,
    revokeGrant: write,
    listGrants: read,
  }),
  // A caller with `write` may create and revoke tokens with no more rights than its own: see
  // rpc/tokens.ts.
  ...rulesOf(TokenService, { createToken: write, listTokens: read, revokeToken: write, rotateToken: write }),
  ...rulesOf(SignInService, {
    getSignInOptions: offers,
    createSignInLink: write,
    signIn: signsIn,
    signOut: read,
    getCaller: read,
    listSignIns: read,
    endSignIn: write,
    startLogin: offers,
    finishLogin: signsIn,
    getLogin: write,
    decideLogin: write,
  }),
  // CreateOrg and ListOrgs are for the operator's org alone: see rpc/orgs.ts.
  ...rulesOf(OrgService, {
    createOrg: admin,
    getOrg: read,
    listOrgs: admin,
    listSecrets: read,
    addMember: admin,
    removeMember: admin,
    listMembers: read,
  }),
  // An agent's settings decide its rights wherever the agent works; starting, stopping or removing
  // a platform affects people outside of the org.
  ...rulesOf(AgentService, {
    createAgent: admin,
    getAgent: read,
    listAgents: read,
    listAgentRevisions: read,
    updateAgentSettings: admin,
    deleteAgent: admin,
    upsertPlatform: admin,
    batchUpsertPlatforms: admin,
    listPlatforms: read,
    deletePlatform: admin,
    startPlatform: admin,
    stopPlatform: admin,
  }),
  // A destination sends agents' texts out of the org.
  ...rulesOf(DestinationService, {
    createDestination: admin,
    getDestination: read,
    listDestinations: read,
    updateDestination: admin,
    deleteDestination: admin,
    rotateDestinationSecret: admin,
    testDestination: admin,
    listDeliveries: read,
    replayDeliveries: admin,
  }),
  ...rulesOf(HookService, {
    createHook: write,
    getHook: read,
    listHooks: read,
    updateHook: write,
    deleteHook: write,
    rotateHookSecret: write,
    listHookDeliveries: read,
    getHookDelivery: read,
    replayHookDelivery: write,
  }),
  ...rulesOf(EventService, { watchEvents: read, listEvents: read }),
  "grpc.health.v1.Health/Check": probes,
  "grpc.health.v1.Health/List": probes,
  "grpc.health.v1.Health/Watch": probes,
  "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": describes,
  "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": describes,
};

/** Throws if an rpc of the services has no rule. Called before the first rpc is served. */
export function requireRules(services: readonly DescService[]): void {
  const without = services
    .flatMap((service) => service.methods.map(nameOf))
    .filter((name) => !Object.hasOwn(rules, name));
  if (without.length > 0) throw new Error(`no rule in src/server/access/rules.ts for ${without.join(", ")}`);
}
