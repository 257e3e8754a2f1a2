/**
 * `@pinion/client`: the device client of Pinion, a daemon, and typed clients for people and
 * services.
 *
 * - `connectDevice` holds a device's stream and delivers results exactly once.
 * - `runDaemon`, `enroll`, `loadConfig` make a daemon for local programs.
 * - `createClients`, `waitForRun`, `waitForTurn` are for everything else.
 */

export { type InstalledAgent, installedAgents, versionOf } from "./agents/drivers/installed.ts";
export { egressNote } from "./agents/egress.ts";
export { type DaemonControl, type DaemonEvent, type DaemonOptions, runDaemon } from "./daemon.ts";
export {
  type Admission,
  type AssignmentHandler,
  AttemptAborted,
  type AttemptContext,
  type Rejection,
} from "./device/attempts/attempt.ts";
export { connectDevice } from "./device/connection.ts";
export { DeviceError, type DeviceErrorReason } from "./device/errors.ts";
export type { AttemptNames, DeviceEvent, Verdict } from "./device/events.ts";
export { type ConnectionEvent, type ConnectionState, transitions } from "./device/lifecycle.ts";
export type { CloseOptions, DeviceConnection, DeviceOptions } from "./device/options.ts";
export type { AttemptResult } from "./device/results/completion.ts";
export { defaultTiming, type Timing } from "./device/timing.ts";
export type { TlsOptions } from "./device/transport.ts";
export { type EnrollOptions, enroll } from "./enroll.ts";
export { type Agent, AgentService, type AgentSettings } from "./gen/pinion/v1/agent_pb.js";
export {
  type Delivery,
  DeliveryState,
  type Destination,
  DestinationService,
  type DestinationSpec,
  NotifyWhen,
} from "./gen/pinion/v1/destination_pb.js";
export {
  type Assignment,
  AssignmentKind,
  AssignmentSchema,
  DeviceService,
  DrainReason,
  Os,
} from "./gen/pinion/v1/device_pb.js";
export { type Event, EventService } from "./gen/pinion/v1/event_pb.js";
export { type Device, FleetService, Liveness } from "./gen/pinion/v1/fleet_pb.js";
export { type Hook, type HookDelivery, HookKind, HookOutcome, HookService } from "./gen/pinion/v1/hook_pb.js";
export { type Member, MemberRole, type Org, OrgService } from "./gen/pinion/v1/org_pb.js";
export {
  Notification,
  OutputStream,
  type Run,
  type RunOutput,
  RunService,
  RunSource,
  RunStatus,
  SkipReason,
  type Window,
} from "./gen/pinion/v1/run_pb.js";
export { type Token, TokenKind, TokenService } from "./gen/pinion/v1/token_pb.js";
export { type Conversation, type Turn, TurnService, TurnStatus } from "./gen/pinion/v1/turn_pb.js";
export {
  CatchupPolicy,
  OverlapPolicy,
  type Watcher,
  WatcherService,
  type WatcherSpec,
  WatcherStatus,
} from "./gen/pinion/v1/watcher_pb.js";
export {
  currentOs,
  ensureInstallId,
  findIdentity,
  forgetIdentity,
  type Identity,
  saveIdentity,
} from "./identity.ts";
export { omissionMarker, omittedBytesOf } from "./kept-output.ts";
export { type Logger, silentLogger } from "./logger.ts";
export { httpAgentFor } from "./network/agent.ts";
export { ProxyError, type ProxySetting, proxyErrorOf, proxyFor } from "./network/proxy.ts";
export { type ClientOptions, type Clients, createClients } from "./ops/clients.ts";
export {
  isAborted,
  isAlreadyExists,
  isFailedPrecondition,
  isInvalidArgument,
  isNotFound,
  isPermissionDenied,
  isResourceExhausted,
  isRetryable,
  isUnauthenticated,
  PinionError,
  type PinionErrorReason,
  pinionErrorOf,
} from "./ops/errors.ts";
export { isEnded, type WaitForRunOptions, waitForRun } from "./ops/wait-for-run.ts";
export { isTurnEnded, type WaitForTurnOptions, waitForTurn } from "./ops/wait-for-turn.ts";
export { type KeepLimits, type Kept, listKept } from "./outbox/kept.ts";
export { daemonPid } from "./outbox/lock.ts";
export { type DirectoryProblem, directoryProblem } from "./private-directory.ts";
export { type FileReading, type ReadOptions, readRegularFile, readRegularFileSync } from "./regular-file.ts";
export {
  type DeviceConfig,
  type ExecutorConfig,
  findExecutor,
  loadConfig,
  parseConfig,
} from "./runner/config.ts";
export { ConfigError, type ConfigProblem } from "./runner/config-problems.ts";
export {
  type Confinement,
  type ConfinementSettings,
  confinementOf,
  isolationProblem,
} from "./runner/confinement.ts";
export { DEFAULT_ENV, PROXY_ENV } from "./runner/inherited-variables.ts";
export { type LoadedConfig, loadLastingConfig } from "./runner/live-config.ts";
export { formatDuration, parseBytes, parseDurationMs } from "./runner/quantities.ts";
export { type DaemonStatus, type EnvironmentFacts, readStatus } from "./status-file.ts";
export { CLIENT_VERSION } from "./version.ts";
