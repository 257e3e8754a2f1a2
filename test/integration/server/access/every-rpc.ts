/** Every rpc of the .proto files: a request for each, and a call with any credential. */
import { readdirSync } from "node:fs";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { nameOf } from "../../../../src/server/access/rules.ts";
import { webhookPlatform } from "../../../support/platforms.ts";

const folder = new URL("../../../../clients/ts/src/gen/pinion/v1/", import.meta.url);
const services: DescService[] = [];
for (const file of readdirSync(folder).filter((name) => name.endsWith("_pb.js"))) {
  const module = (await import(new URL(file, folder).href)) as Record<string, { kind?: string }>;
  services.push(...(Object.values(module).filter((it) => it.kind === "service") as unknown as DescService[]));
}
export const methods = services.flatMap((service) => service.methods);

export const shortName = (method: DescMethod) => nameOf(method).replace("pinion.v1.", "");

type AnyClient = Record<
  string,
  (request: unknown, options?: { headers?: Record<string, string>; signal?: AbortSignal }) => unknown
>;

const transports = new Map<string, Transport>();

/** One connection for all calls to a server: a connection costs more than a call. */
function transportTo(url: string): Transport {
  const transport = transports.get(url) ?? createGrpcTransport({ baseUrl: url });
  transports.set(url, transport);
  return transport;
}

/**
 * Calls an rpc and returns its status; a stream is cancelled after its first message, or after half
 * a second. `isWhole`: after half a second in any case; the answer is all messages.
 */
export async function call(
  url: string,
  method: DescMethod,
  secret: string | undefined,
  request: object = {},
  { isWhole = false } = {},
): Promise<{ code: string; answer: unknown }> {
  const client = createClient(method.parent, transportTo(url)) as unknown as AnyClient;
  const headers: Record<string, string> = secret === undefined ? {} : { authorization: `Bearer ${secret}` };
  const invoke = client[method.localName]!;
  try {
    if (method.methodKind === "unary") return { code: "ok", answer: await invoke(request, { headers }) };
    const leave = new AbortController();
    const timer = setTimeout(() => leave.abort(), 500);
    async function* hello() {
      yield request;
    }
    const stream = invoke(method.methodKind === "server_streaming" ? request : hello(), {
      headers,
      signal: leave.signal,
    }) as AsyncIterable<unknown>;
    const messages: unknown[] = [];
    try {
      for await (const message of stream) {
        if (!isWhole) return { code: "ok", answer: message };
        messages.push(message);
      }
      return { code: "ok", answer: messages };
    } catch (error) {
      if (isWhole && leave.signal.aborted) return { code: "ok", answer: messages };
      throw error;
    } finally {
      clearTimeout(timer);
      leave.abort();
    }
  } catch (error) {
    return { code: Code[ConnectError.from(error).code]!, answer: undefined };
  }
}

const toEveryone = { grantee: { kind: { case: "everyone", value: true } } };

/** Requests that name resources of the org `local`. */
export function requestsAbout(ids: Record<string, string>): Record<string, object | "names nothing"> {
  const watcherId = ids.watcher!;
  const start = timestampFromDate(new Date(Date.now() - 86_400_000));
  const end = timestampFromDate(new Date(Date.now() - 3_600_000));
  const spec = { name: "x", prompt: "x" };
  const platform = {
    stableId: "not-there",
    agentId: ids.agent,
    ...webhookPlatform,
  };
  return {
    "DeviceService/Connect": "names nothing",
    "DeviceService/Enroll": "names nothing",
    "DeviceService/CompleteRun": {
      completion: { workId: ids.run, attemptToken: "0190f5fe-7c00-7a00-8000-000000000001", outcome: 1 },
    },
    "DeviceService/TriggerWatcher": { watcherId },
    "DeviceService/ListMyWatchers": "names nothing",
    "WatcherService/CreateWatcher": { slug: "x", spec: { ...spec, deviceId: ids.device } },
    "WatcherService/GetWatcher": { watcherId },
    "WatcherService/ListWatchers": "names nothing",
    "WatcherService/UpdateWatcher": { watcherId, spec, updateMask: { paths: ["prompt"] } },
    "WatcherService/DeleteWatcher": { watcherId },
    "WatcherService/PauseWatcher": { watcherId },
    "WatcherService/ResumeWatcher": { watcherId },
    "WatcherService/TriggerWatcher": { watcherId },
    "WatcherService/PreviewSchedule": { watcherId },
    "WatcherService/BackfillWatcher": { watcherId, start, end },
    "WatcherService/ListWatcherRevisions": { watcherId },
    "RunService/GetRun": { runId: ids.run },
    "RunService/ListRuns": { watcherId },
    "RunService/CancelRun": { runId: ids.run },
    "RunService/StartBulkOperation": { kind: 1, filter: { watcherId }, dryRun: true },
    "RunService/GetBulkOperation": "names nothing",
    "RunService/ListBulkOperations": "names nothing",
    "RunService/StopBulkOperation": "names nothing",
    "RunService/RetryRun": { runId: ids.run },
    "RunService/WatchRun": { runId: ids.run },
    "RunService/ExplainRun": { runId: ids.run },
    "RunService/ListWindows": { watcherId },
    "RunService/GetTranscript": { runId: ids.run },
    "RunService/SummarizeUsage": { watcherId },
    "RunService/SummarizeRuns": { watcherId },
    "RunService/SearchRuns": "names nothing",
    "RunService/ListQuestions": { runId: ids.run },
    "RunService/AnswerQuestion": { runId: ids.run, optionId: "yes" },
    "TurnService/StartTurn": { agentId: ids.agent, userId: "ada", messageId: "m1", input: "secret" },
    "TurnService/GetTurn": { turnId: ids.turn },
    "TurnService/WatchTurn": { turnId: ids.turn },
    "TurnService/ListTurns": "names nothing",
    "TurnService/CancelTurn": { turnId: ids.turn },
    "TurnService/GetConversation": { conversationId: ids.conversation },
    "TurnService/ListConversations": "names nothing",
    "TurnService/DeleteConversation": { conversationId: ids.conversation },
    "FleetService/ListDevices": "names nothing",
    "FleetService/GetDevice": { deviceId: ids.device },
    "FleetService/UpdateDevice": { deviceId: ids.device, label: "x", updateMask: { paths: ["label"] } },
    "FleetService/LabelDevice": { deviceId: ids.device, add: ["gpu"] },
    "FleetService/DeleteDevice": { deviceId: ids.device },
    "FleetService/DisconnectDevice": { deviceId: ids.device },
    "FleetService/GetDeviceLog": { deviceId: ids.device },
    "FleetService/CreateJoinCode": "names nothing",
    "FleetService/GrantDevice": { deviceId: ids.device, ...toEveryone, permissions: [1] },
    "FleetService/RevokeGrant": { deviceId: ids.device, ...toEveryone },
    "FleetService/ListGrants": { deviceId: ids.device },
    "AgentService/CreateAgent": "names nothing",
    "AgentService/GetAgent": { agentId: ids.agent },
    "AgentService/ListAgents": "names nothing",
    "AgentService/ListAgentRevisions": { agentId: ids.agent },
    "AgentService/UpdateAgentSettings": {
      agentId: ids.agent,
      settings: {},
      updateMask: { paths: ["model"] },
    },
    "AgentService/DeleteAgent": { agentId: ids.agent },
    "AgentService/UpsertPlatform": platform,
    // Answers for each item separately: platforms.test.ts tests the answers about another org's
    // platforms.
    "AgentService/BatchUpsertPlatforms": "names nothing",
    "AgentService/ListPlatforms": "names nothing",
    "AgentService/DeletePlatform": { stableId: ids.platform },
    "AgentService/StartPlatform": { stableId: ids.platform },
    "AgentService/StopPlatform": { stableId: ids.platform },
    "TokenService/CreateToken": "names nothing",
    "TokenService/ListTokens": "names nothing",
    "TokenService/RevokeToken": { tokenId: ids.token },
    "TokenService/RotateToken": { tokenId: ids.token },
    "SignInService/GetSignInOptions": "names nothing",
    "SignInService/CreateSignInLink": "names nothing",
    "SignInService/SignIn": "names nothing",
    "SignInService/SignOut": "names nothing",
    "SignInService/GetCaller": "names nothing",
    "SignInService/ListSignIns": "names nothing",
    "SignInService/EndSignIn": { signInId: ids.signIn },
    "SignInService/StartLogin": "names nothing",
    "SignInService/FinishLogin": "names nothing",
    // Belongs to no org until a person approves; any holder of the code may read.
    "SignInService/GetLogin": "names nothing",
    "SignInService/DecideLogin": "names nothing",
    "OrgService/CreateOrg": "names nothing",
    "OrgService/GetOrg": "names nothing",
    "OrgService/ListOrgs": "names nothing",
    "OrgService/ListSecrets": "names nothing",
    "OrgService/AddMember": "names nothing",
    "OrgService/RemoveMember": { userId: ids.member },
    "OrgService/ListMembers": "names nothing",
    "HookService/CreateHook": { spec: { watcherId, kind: 5 } },
    "HookService/GetHook": { hookId: ids.hook },
    "HookService/ListHooks": "names nothing",
    "HookService/UpdateHook": { hookId: ids.hook, spec: {}, updateMask: { paths: ["filter"] } },
    "HookService/DeleteHook": { hookId: ids.hook },
    "HookService/RotateHookSecret": { hookId: ids.hook },
    "HookService/ListHookDeliveries": { hookId: ids.hook },
    "HookService/GetHookDelivery": { hookId: ids.hook, id: ids.hookDelivery },
    "HookService/ReplayHookDelivery": { hookId: ids.hook, id: ids.hookDelivery },
    "DestinationService/CreateDestination": "names nothing",
    "DestinationService/GetDestination": { destinationId: ids.destination },
    "DestinationService/ListDestinations": "names nothing",
    "DestinationService/UpdateDestination": {
      destinationId: ids.destination,
      spec: { name: "x", kind: { case: "webhook", value: { url: "https://example.org" } } },
    },
    "DestinationService/DeleteDestination": { destinationId: ids.destination },
    "DestinationService/RotateDestinationSecret": { destinationId: ids.destination },
    "DestinationService/TestDestination": { destinationId: ids.destination },
    "DestinationService/ListDeliveries": { destinationId: ids.destination },
    "DestinationService/ReplayDeliveries": { deliveryIds: [ids.delivery] },
    "EventService/WatchEvents": "names nothing",
    "EventService/ListEvents": "names nothing",
  };
}

export const textOf = (value: unknown) =>
  JSON.stringify(value, (_key, inner) => (typeof inner === "bigint" ? String(inner) : inner)) ?? "";
