/** The services of a replica, behind one chain of interceptors. */
import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import { Health } from "#gen/grpc/health/v1/health_pb.js";
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
import { interceptorChain } from "../server/access/interceptors/chain.ts";
import { peerAddressOf, peerValues } from "../server/access/peer.ts";
import type { Crowd } from "../server/http/crowd/crowd.ts";
import { type HealthState, registerHealth } from "../server/http/health.ts";
import { createRpcHandler, type RpcHandler } from "../server/http/port/adapter.ts";
import type { TakeStream } from "../server/http/port/requests.ts";
import { registerReflection } from "../server/http/reflection.ts";
import type { PlatformHost } from "../server/platforms/host.ts";
import { createPlatformRunner } from "../server/platforms/runner.ts";
import { agentService } from "../server/rpc/agents.ts";
import { destinationService } from "../server/rpc/destinations.ts";
import { deviceService } from "../server/rpc/device.ts";
import { eventService } from "../server/rpc/events.ts";
import { fleetService } from "../server/rpc/fleet.ts";
import { hookService } from "../server/rpc/hooks.ts";
import { orgService } from "../server/rpc/orgs.ts";
import { createPlainCalls } from "../server/rpc/plain-calls.ts";
import { runService } from "../server/rpc/runs.ts";
import { signInService } from "../server/rpc/sign-ins.ts";
import { tokenService } from "../server/rpc/tokens.ts";
import { turnService } from "../server/rpc/turns.ts";
import { watcherService } from "../server/rpc/watchers.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import { createMcp, withMcp } from "./mcp.ts";
import type { Storage } from "./storage.ts";
import type { Work } from "./work.ts";

/** Every service of the API; the guard has a rule for each of their rpcs. */
export const services: DescService[] = [
  DeviceService,
  WatcherService,
  RunService,
  TurnService,
  FleetService,
  TokenService,
  SignInService,
  OrgService,
  EventService,
  HookService,
  AgentService,
  DestinationService,
];

export type Own = {
  health: HealthState;
  crowd: Crowd;
  platforms: PlatformHost;
  shutdownSignal: AbortSignal;
  poke: () => void;
  pokeBulks: () => void;
  onDeliveries: () => void;
};

/** The services, with bounds on message size, in bytes. */
export type Rpcs = {
  /** Any protocol. */
  handler(readMaxBytes: number): RpcHandler;
  /** Unary calls over gRPC and Connect of callers who are known. */
  takeCall(readMaxBytes: number): TakeStream;
};

export function serveRpc(
  foundation: Foundation,
  storage: Storage,
  access: Access,
  work: Work,
  own: Own,
): Rpcs {
  const { config, log, metrics, tracer } = foundation;
  const { guard, streams, limits, quotas } = access;
  const db = storage.requests.tenantDb;
  const deps = depsOf(foundation, storage, access, work, own);
  const bounds = { limits, ...config.rates, quotas };
  const onEvents = (orgId: string) => work.feed.eventsAppended(orgId);
  const options = {
    interceptors: interceptorChain({
      ...{ guard, log, streams, db, onEvents, tracer, bounds },
      onCall: metrics.called,
    }),
    contextValues: (request: Parameters<typeof peerValues>[0]) => peerValues(request, config),
    // Otherwise a misspelled field would be ignored, and with it, for example, a limit.
    jsonOptions: { ignoreUnknownFields: false },
    shutdownSignal: own.shutdownSignal,
    crowd: own.crowd,
    routes(router: ConnectRouter) {
      registerWork(router, deps);
      registerPeople(router, deps);
      registerOutside(router, deps);
      registerHealth(router, { state: own.health, services });
      registerReflection(router, [...services, Health]);
    },
  };
  const mcp = createMcp({
    ...{ guard, limits, db, bell: deps.doorbell },
    ...{ routes: options.routes, interceptors: options.interceptors, shutdownSignal: own.shutdownSignal },
    addressOf: ({ headers, socket }) => peerAddressOf(headers, socket?.remoteAddress, config.trustedProxies),
  });
  return {
    handler: (readMaxBytes) => withMcp(createRpcHandler({ ...options, readMaxBytes }), mcp),
    takeCall: (readMaxBytes) => createPlainCalls({ ...options, guard, readMaxBytes }),
  };
}

type Deps = ReturnType<typeof depsOf>;

/** What the services need; each takes its part. */
function depsOf(
  { config, log, telemetry }: Foundation,
  { requests, incarnation }: Storage,
  { guard, quotas }: Access,
  { hub, deviceLogs, feed, publisher, streamEnds, hold }: Work,
  own: Own,
) {
  const db = requests.tenantDb;
  const policy = { ...config.failures, quotas };
  const doorbell = { ...publisher, revoke: streamEnds.revoke, disconnect: streamEnds.disconnect };
  const { keyring } = config.secrets;
  return {
    ...{ db, crossOrgDb: requests.db, feed, doorbell, telemetry, log, hub, deviceLogs, quotas, policy },
    incarnation: incarnation.current,
    ...{ guard, authCache: guard.authCache, config, keyring, cell: config.cell },
    ...{ publicUrl: config.publicUrl, ttlMs: config.session.ttlMs },
    ...{ pokeBulks: own.pokeBulks, onDeliveries: own.onDeliveries },
    surroundings: { policy, quotas, doorbell, hold, log, scheduleChanged: own.poke },
    runner: createPlatformRunner({ db, log, feed, ...config.secrets, starter: own.platforms }),
  };
}

/** Services of devices, and of what runs on devices. */
function registerWork(router: ConnectRouter, deps: Deps): void {
  // A stream open for hours is not worth a compressor's memory.
  router.service(DeviceService, deviceService(deps), { acceptCompression: [] });
  const { intervalMsMin } = deps.config;
  router.service(WatcherService, watcherService({ ...deps, intervalMsMin }));
  router.service(RunService, runService(deps));
  router.service(TurnService, turnService(deps));
  router.service(EventService, eventService(deps));
}

/** Services of people, their devices and their credentials. */
function registerPeople(router: ConnectRouter, deps: Deps): void {
  const { config } = deps;
  router.service(FleetService, fleetService(deps));
  router.service(TokenService, tokenService(deps));
  const signIn = { signInMs: config.signInMs, oidcName: config.oidc?.name ?? "" };
  router.service(SignInService, signInService({ ...deps, ...signIn }));
  const { installedProviders, secrets } = config;
  router.service(OrgService, orgService({ ...deps, installedProviders, secrets }));
}

/** Services of agents, and of other systems that start work or hear of results. */
function registerOutside(router: ConnectRouter, deps: Deps): void {
  const { reach, smtp } = deps.config.destinations;
  router.service(HookService, hookService(deps));
  router.service(AgentService, agentService(deps));
  const out = { reach, hasServerSmtp: smtp !== undefined };
  router.service(DestinationService, destinationService({ ...deps, ...out }));
}
