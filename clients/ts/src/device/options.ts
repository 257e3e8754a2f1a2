import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ExecutorInfoSchema, WorkspaceInfoSchema } from "../gen/pinion/v1/activity_pb.js";
import type { Os, UpgradeInfoSchema } from "../gen/pinion/v1/device_pb.js";
import type { Logger } from "../logger.ts";
import type { MachineFingerprint } from "../machine.ts";
import { type ProxySetting, proxyErrorOf, proxyFor } from "../network/proxy.ts";
import type { KeepLimits } from "../outbox/kept.ts";
import type { Admission, AssignmentHandler } from "./attempts/attempt.ts";
import { DeviceError, messageOf } from "./errors.ts";
import type { DeviceEvent } from "./events.ts";
import type { ConnectionState } from "./lifecycle.ts";
import type { Timing } from "./timing.ts";
import { parseEndpoint, type TlsOptions } from "./transport.ts";

export interface DeviceOptions {
  /** "http://host:port" or "https://host:port". */
  url: string;
  /** The device's token, from enrolment. */
  token: string;
  /** Chosen once per installation; 8 to 100 bytes. */
  installId: string;
  os: Os;
  /** Agent kinds supported by `onAssignment`. */
  agentKinds: string[];
  /** Bounds of the kept acknowledged results, in time and size; default: 24 h, 256 MiB. */
  keep?: KeepLimits;
  /** Directory of the outbox and the lock; created if missing. One daemon per directory. */
  stateDir: string;
  /**
   * Does the work. Called once per attempt, after the accept. The resolved result is delivered
   * exactly once, across reconnects and restarts. A rejection is reported as a failure with its
   * message.
   */
  onAssignment: AssignmentHandler;
  /** Maximum of concurrent attempts, 1 to 64; default 1. */
  maxConcurrency?: number;
  /**
   * Called before an attempt is accepted; a returned rejection refuses the attempt. The caller may
   * write a journal here.
   */
  admit?: Admission;
  /**
   * Called once, with the state directory locked and before the first dial, for example for ending
   * leftover processes.
   */
  prepare?: () => Promise<void>;
  /** Shown to people; an empty label keeps the server's label. */
  label?: string;
  appVersion?: string;
  capabilities?: string[];
  /** Details of the agent kinds, shown where a person chooses a kind. */
  executors?: MessageInitShape<typeof ExecutorInfoSchema>[];
  /** Workspaces offered to runs. */
  workspaces?: MessageInitShape<typeof WorkspaceInfoSchema>[];
  tls?: TlsOptions;
  /** Left out: the variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY apply. */
  proxy?: ProxySetting;
  /**
   * Problem of the daemon's configuration file while the previous version of the file stays in
   * force.
   */
  configProblem?: string;
  /** The latest lines of the daemon's log, at most so many, for a person who asks by the server. */
  logExcerpt?: (linesMax: number) => { text: string; isTruncated: boolean };
  /** How the daemon's own program is kept up to date. */
  upgrade?: MessageInitShape<typeof UpgradeInfoSchema>;
  /** Distinguishes this machine from another with a copy of the state; see `machineFingerprint`. */
  machine?: MachineFingerprint;
  /** Aborting closes the connection, with `close()`'s defaults. */
  signal?: AbortSignal;
  logger?: Logger;
  /** Called for every event; must not throw and must not wait. */
  onEvent?: (event: DeviceEvent) => void;
  /** For tests and unusual networks. */
  timing?: Partial<Timing>;
}

export interface CloseOptions {
  /** Time in ms for running handlers to end by themselves; default 0. */
  finishMs?: number;
  /**
   * Time in ms for handlers to settle after the abort of their signal; default 10 s. The others are
   * reported as failed.
   */
  graceMs?: number;
  /** Time in ms for acknowledgements; default 5 s. The rest stays in the outbox. */
  flushMs?: number;
}

export const defaultClose: Required<CloseOptions> = { finishMs: 0, graceMs: 10_000, flushMs: 5_000 };
export interface DeviceConnection {
  readonly state: ConnectionState;
  /** Number of attempts in progress. */
  readonly running: number;
  /** Count of results without an acknowledgement. */
  readonly unacknowledged: number;
  /** Resolves after `close`; rejects with a DeviceError after a final error. */
  readonly closed: Promise<void>;
  /**
   * Refuses new work, ends the running attempts, delivers the results and ends the stream; takes at
   * most finishMs + graceMs + flushMs and a second.
   */
  close(options?: CloseOptions): Promise<void>;
  /** Refuses new work from now on; running attempts go on. */
  refuseNew(): void;
  /**
   * Changes the device's description. The server learns of the change by a new session; running
   * attempts go on.
   */
  update(changes: DeviceChanges): void;
}

/** Options that may change while a device is connected. */
export type DeviceChanges = Partial<
  Pick<
    DeviceOptions,
    | "agentKinds"
    | "executors"
    | "workspaces"
    | "maxConcurrency"
    | "label"
    | "configProblem"
    | "proxy"
    | "keep"
    | "upgrade"
  >
>;

/** Whether two descriptions of a device tell the server the same. */
export function isSameDescription(a: DeviceOptions, b: DeviceOptions): boolean {
  return JSON.stringify(a, comparable) === JSON.stringify(b, comparable);
}

/** Functions, signals and secrets are left out of the comparison. */
function comparable(key: string, value: unknown): unknown {
  return ["signal", "logger", "tls", "token"].includes(key) || typeof value === "bigint" ? undefined : value;
}

/** Whether a token would be sent without encryption. */
export function isTokenExposed(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === "http:" && !/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
}

/** Throws a DeviceError for options that no connection can use. */
export function checkOptions(options: DeviceOptions): void {
  try {
    parseEndpoint(options);
    proxyFor(options.url, options.proxy);
  } catch (error) {
    const advice = proxyErrorOf(error)?.advice;
    throw new DeviceError("unusable", messageOf(error) + (advice === undefined ? "" : `; ${advice}`));
  }
  const bytes = Buffer.byteLength(options.installId);
  if (bytes < 8 || bytes > 100) throw new DeviceError("unusable", "installId must have 8 to 100 bytes");
  const concurrency = options.maxConcurrency ?? 1;
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 64) {
    throw new DeviceError("unusable", "maxConcurrency must be a whole number from 1 to 64");
  }
  if (options.token === "") throw new DeviceError("unusable", "token is empty; enrol the device first");
}
