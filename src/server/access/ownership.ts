/**
 * The rights that a request needs on devices, for every rpc: the devices a request names, and the
 * deeds it asks for.
 *
 * `wishesOf` compiles only if a service's table has a line for each of its rpcs, and the guard's
 * interceptor calls {@link requireAllowed} before a handler sees the request: no handler decides,
 * and none can forget. redaction.ts removes the answers' fields about runs on devices that the
 * caller may not read.
 */
import type { DescMethod, DescService, MessageShape } from "@bufbuild/protobuf";
import { AgentService } from "#gen/pinion/v1/agent_pb.js";
import { DestinationService } from "#gen/pinion/v1/destination_pb.js";
import { DeviceService } from "#gen/pinion/v1/device_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { HookService } from "#gen/pinion/v1/hook_pb.js";
import { OrgService } from "#gen/pinion/v1/org_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { SignInService } from "#gen/pinion/v1/sign_in_pb.js";
import { TokenKind, TokenService } from "#gen/pinion/v1/token_pb.js";
import { TurnService } from "#gen/pinion/v1/turn_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { refuse } from "../../errors.ts";
import * as grants from "../../store/people/devices/grants.ts";
import * as rights from "../../store/people/devices/rights.ts";
import { devicesOf, type Subject } from "../../store/people/devices/subjects.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Principal } from "./principal.ts";
import { nameOf } from "./rules.ts";

/** A deed of a request and its subject. */
type Wish = { deed: rights.Deed; to: Subject } | { deed: "own"; to: "every device" };

/**
 * For rpcs without a deed on a device and without agents' texts in the answer, or with redacted
 * answers.
 */
const nothing = "nothing";

type Wishes<Method extends DescMethod> =
  | typeof nothing
  | ((request: MessageShape<Method["input"]>, principal: Principal) => readonly Wish[]);

type AnyWishes = typeof nothing | ((request: never, principal: Principal) => readonly Wish[]);

function wishesOf<Service extends DescService>(
  service: Service,
  table: { [Name in keyof Service["method"]]: Wishes<Service["method"][Name]> },
): Record<string, AnyWishes> {
  return Object.fromEntries(
    service.methods.map((method) => [
      nameOf(method),
      table[method.localName as keyof Service["method"]] as AnyWishes,
    ]),
  );
}

const use = (to: Subject): Wish => ({ deed: "use", to });
const read = (to: Subject): Wish => ({ deed: "read", to });
const manage = (to: Subject): Wish => ({ deed: "manage", to });
const own = (to: Subject): Wish => ({ deed: "own", to });
const usesWatcher = ({ watcherId }: { watcherId: string }) => [use({ watcher: watcherId })];

/** By the rpc's fully qualified name. */
const wishes: Readonly<Record<string, AnyWishes>> = {
  // A device's token reaches only resources pinned to the same device (R6).
  ...wishesOf(DeviceService, {
    connect: nothing,
    enroll: nothing,
    completeRun: nothing,
    triggerWatcher: nothing,
    listMyWatchers: nothing,
  }),
  ...wishesOf(WatcherService, {
    createWatcher: ({ spec }) => [
      ...(spec?.deviceId ? [use({ device: spec.deviceId })] : []),
      // The agent receives the results of the followed runs.
      ...(spec?.after ?? []).map((watcher) => read({ watcher })),
    ],
    getWatcher: nothing,
    listWatchers: nothing,
    updateWatcher: ({ watcherId, spec, updateMask }) => [
      use({ watcher: watcherId }),
      ...(spec?.deviceId && updateMask?.paths.includes("device_id") ? [use({ device: spec.deviceId })] : []),
      ...(updateMask?.paths.includes("after") ? (spec?.after ?? []) : []).map((watcher) => read({ watcher })),
    ],
    deleteWatcher: usesWatcher,
    pauseWatcher: usesWatcher,
    resumeWatcher: usesWatcher,
    triggerWatcher: usesWatcher,
    previewSchedule: nothing,
    backfillWatcher: usesWatcher,
    listWatcherRevisions: nothing,
  }),
  ...wishesOf(RunService, {
    getRun: nothing,
    listRuns: nothing,
    cancelRun: ({ runId }) => [use({ run: runId })],
    // Runs on devices that the caller may not use are left out, at the start and again at each
    // run's turn (scheduler/starts/bulks.ts).
    startBulkOperation: nothing,
    getBulkOperation: nothing,
    listBulkOperations: nothing,
    stopBulkOperation: nothing,
    retryRun: ({ runId }) => [use({ run: runId }), use({ watcherOfRun: runId })],
    watchRun: ({ runId }) => [read({ run: runId })],
    explainRun: nothing,
    listWindows: nothing,
    getTranscript: ({ runId }) => [read({ run: runId })],
    summarizeUsage: nothing,
    summarizeRuns: nothing,
    // The handler leaves out results that the caller may not read, because a hit alone would reveal
    // a word of them.
    searchRuns: nothing,
    listQuestions: nothing,
    answerQuestion: ({ runId, turnId }) => [turnId ? use({ turn: turnId }) : use({ run: runId })],
  }),
  ...wishesOf(TurnService, {
    startTurn: ({ agentId, runId, resumeRunId }) => [
      use({ agent: agentId }),
      ...(runId ? [use({ run: runId })] : []),
      // The agent continues a session that contains earlier texts.
      ...(resumeRunId ? [use({ run: resumeRunId }), read({ run: resumeRunId })] : []),
    ],
    getTurn: nothing,
    watchTurn: ({ turnId }) => [read({ turn: turnId })],
    listTurns: nothing,
    cancelTurn: ({ turnId }) => [use({ turn: turnId })],
    getConversation: ({ conversationId, includeSnapshot }) =>
      includeSnapshot ? [read({ conversation: conversationId })] : [],
    listConversations: nothing,
    deleteConversation: ({ conversationId }) => [use({ conversation: conversationId })],
  }),
  ...wishesOf(FleetService, {
    listDevices: nothing,
    getDevice: nothing,
    updateDevice: ({ deviceId }) => [manage({ device: deviceId })],
    labelDevice: ({ deviceId }) => [manage({ device: deviceId })],
    deleteDevice: ({ deviceId }) => [own({ device: deviceId })],
    disconnectDevice: ({ deviceId }) => [manage({ device: deviceId })],
    getDeviceLog: ({ deviceId }) => [manage({ device: deviceId })],
    // Enroll decides the right to enrol a known installation (src/usecases/enrolments.ts).
    createJoinCode: nothing,
    grantDevice: ({ deviceId }) => [own({ device: deviceId })],
    revokeGrant: ({ deviceId, grantee }, { userId, tokenId }) => {
      const { case: kind, value } = grantee?.kind ?? {};
      const isCallers = (kind === "userId" && value === userId) || (kind === "tokenId" && value === tokenId);
      return isCallers ? [] : [own({ device: deviceId })];
    },
    listGrants: nothing,
  }),
  ...wishesOf(TokenService, {
    createToken: ({ kind, deviceIds, allDevices }) =>
      kind !== TokenKind.SVC
        ? []
        : [
            ...deviceIds.map((deviceId) => own({ device: deviceId })),
            ...(allDevices ? [{ deed: "own", to: "every device" } as const] : []),
          ],
    listTokens: nothing,
    revokeToken: nothing,
    // The caller learns the secret of the successor token, and with it gains the service's rights.
    rotateToken: ({ tokenId }, principal) => (tokenId === principal.tokenId ? [] : [own({ token: tokenId })]),
  }),
  // A signed-in browser or command has the rights of its person.
  ...wishesOf(SignInService, {
    getSignInOptions: nothing,
    createSignInLink: nothing,
    signIn: nothing,
    signOut: nothing,
    getCaller: nothing,
    listSignIns: nothing,
    endSignIn: nothing,
    startLogin: nothing,
    finishLogin: nothing,
    getLogin: nothing,
    decideLogin: nothing,
  }),
  ...wishesOf(OrgService, {
    createOrg: nothing,
    getOrg: nothing,
    listOrgs: nothing,
    listSecrets: nothing,
    addMember: nothing,
    removeMember: nothing,
    listMembers: nothing,
  }),
  // Changes of an agent need an admin, and admins may use every device.
  ...wishesOf(AgentService, {
    createAgent: nothing,
    getAgent: nothing,
    listAgents: nothing,
    listAgentRevisions: nothing,
    updateAgentSettings: nothing,
    deleteAgent: nothing,
    upsertPlatform: nothing,
    batchUpsertPlatforms: nothing,
    listPlatforms: nothing,
    deletePlatform: nothing,
    startPlatform: nothing,
    stopPlatform: nothing,
  }),
  // A delivery's row has no text of the delivery; watchers.ts checks the right to send a device's
  // results at the decision.
  ...wishesOf(DestinationService, {
    createDestination: nothing,
    getDestination: nothing,
    listDestinations: nothing,
    updateDestination: nothing,
    deleteDestination: nothing,
    rotateDestinationSecret: nothing,
    testDestination: nothing,
    listDeliveries: nothing,
    replayDeliveries: nothing,
  }),
  ...wishesOf(HookService, {
    // Any holder of a hook's secret can start its watcher.
    createHook: ({ spec }) => [use({ watcher: spec?.watcherId ?? "" })],
    getHook: nothing,
    listHooks: nothing,
    updateHook: ({ hookId, spec, updateMask }) => [
      use({ hook: hookId }),
      ...(updateMask?.paths.includes("watcher_id") ? [use({ watcher: spec?.watcherId ?? "" })] : []),
    ],
    deleteHook: ({ hookId }) => [use({ hook: hookId })],
    rotateHookSecret: ({ hookId }) => [use({ hook: hookId })],
    listHookDeliveries: nothing,
    // The posted body is the input of the hook's runs.
    getHookDelivery: ({ hookId }) => [read({ hook: hookId })],
    replayHookDelivery: ({ hookId }) => [use({ hook: hookId })],
  }),
  ...wishesOf(EventService, { watchEvents: nothing, listEvents: nothing }),
};

export type Ownership = { db: Db; principal: Principal };

/**
 * Refuses with `permission_denied` a deed that the caller may not do to the devices the request
 * names, and notes the first use of the grants that allow a deed; returns whether a first use was
 * noted. Missing subjects are refused by the handler.
 */
export async function requireAllowed(
  { db, principal }: Ownership,
  method: DescMethod,
  request: unknown,
): Promise<boolean> {
  const wanted = wishes[nameOf(method)] ?? nothing;
  if (wanted === nothing || principal.isEverywhere) return false;
  const { orgId, userId, tokenId, actor } = principal;
  const who = { userId, tokenId };
  const used = new Set<string>();
  for (const { deed, to } of wanted(request as never, principal)) {
    if (to === "every device") refuseEveryDevice();
    if ("token" in to && (await rights.isEverywhere(db, { orgId, userId: null, tokenId: to.token }))) {
      refuseEveryDevice();
    }
    const deviceIds = await devicesOf(db, { orgId, subject: to });
    for (const standing of await rights.standings(db, { orgId, who, deviceIds })) {
      const right = rights.rightTo(deed, standing) ?? rights.refuseDeed(deed, standing);
      if (typeof right === "object" && !right.isUsed) used.add(right.grantId);
    }
  }
  if (used.size === 0) return false;
  return grants.noteFirstUse(db, { orgId, grantIds: [...used], actor });
}

function refuseEveryDevice(): never {
  refuse(
    "permission_denied",
    "only an owner or admin of the org lets a service use every device; name the devices in device_ids, or ask one of them",
  );
}
