import { connectDevice, type DeviceConnection, defaultClose } from "./device/connection.ts";
import type { DeviceEvent } from "./device/events.ts";
import { nowMs, type Timing } from "./device/timing.ts";
import type { TlsOptions } from "./device/transport.ts";
import type { Assignment, Platform } from "./gen/pinion/v1/device_pb.js";
import { currentPlatform, ensureInstallId } from "./identity.ts";
import { type Logger, silentLogger } from "./logger.ts";
import { machineFingerprint } from "./machine.ts";
import type { ProxySetting } from "./network/proxy.ts";
import type { DeviceConfig } from "./runner/config.ts";
import { keepLastGood, watchConfig } from "./runner/live-config.ts";
import { desktopNotifier } from "./runner/notification.ts";
import { Runner } from "./runner/runner.ts";
import { StatusFile } from "./status-file.ts";

/** What happens in a daemon: everything of the connection, and what its runner does. */
export type DaemonEvent =
  | DeviceEvent
  /** An agent's process was started. */
  | {
      type: "started";
      atMs: number;
      runId: string;
      attemptToken: string;
      pid: number;
      /** The executor's kind. */
      executor: string;
    }
  /** The configuration was read again. `problem`: what is wrong with it; the one before it stays in force. */
  | { type: "configured"; atMs: number; file: string; problem: string }
  /** What an earlier daemon left running was ended; emitted only if there was any. */
  | { type: "swept"; atMs: number; runIds: string[]; escaped: number }
  /** The daemon takes nothing new and ends what runs. */
  | { type: "stopping"; atMs: number; running: number; unacknowledged: number };

export interface DaemonOptions {
  url: string;
  /** The device's token, from `enroll`. */
  token: string;
  stateDir: string;
  config: DeviceConfig;
  /**
   * The file that the configuration is from: read again when it changes, and on `reload`. While it is wrong, the configuration
   * before it stays in force.
   */
  configFile?: string;
  /** What is wrong with that file already, if the configuration is an earlier one; see `loadLastingConfig`. */
  configProblem?: string;
  /** What the caller has to say about a configuration that was read. */
  adjustConfig?: (config: DeviceConfig) => DeviceConfig;
  /** Calls the function that it is given whenever the file is to be read again; answers how that is ended. */
  onReload?: (reload: () => void) => () => void;
  /** Stops the daemon gracefully. */
  signal: AbortSignal;
  logger?: Logger;
  /** Called for everything that happens; must not throw and must not wait. */
  onEvent?: (event: DaemonEvent) => void;
  /** Left out: that of the state directory (see `ensureInstallId`). */
  installId?: string;
  platform?: Platform;
  appVersion?: string;
  tls?: TlsOptions;
  /** Goes before the configuration's `proxy`, which goes before HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY. */
  proxy?: ProxySetting;
  /**
   * How long running agents may go on after a stop was asked for, in case they end by themselves; default 3 s. Then they
   * are ended: SIGTERM, and SIGKILL after their `kill_grace`.
   */
  stopGraceMs?: number;
  /** How long results may take to be acknowledged at a stop; default 5 s. The rest waits for the next start. */
  flushMs?: number;
  /**
   * The W3C trace context that a program gets as TRACEPARENT. Left out: the assignment's own, so that a program's spans
   * stand beside the daemon's; a daemon that writes spans gives its span's.
   */
  traceparentOf?: (assignment: Assignment) => string;
  /** Files and directories besides the state that programs with `isolate = true` do not see. */
  hidden?: string[];
  /** From which agents get the variables that their executor allows. Default: this process's. */
  env?: NodeJS.ProcessEnv;
  /** For tests and unusual networks. */
  timing?: Partial<Timing>;
}

const STOP_GRACE_MS = 3_000;
/** From the SIGKILL of an agent to the end of its attempt: the system's work, the drain of pipes, the outbox. */
const KILL_MARGIN_MS = 5_000;

/**
 * Runs the daemon: connects, runs assignments as local programs, reconnects for ever. Resolves after a graceful stop;
 * rejects with a DeviceError when there is no use in going on (token refused, device removed, second daemon).
 *
 * At a stop it takes nothing new, ends what still runs after `stopGraceMs`, reports it as failed ("daemon stopped") and
 * waits at most `flushMs` for acknowledgements; what is left is delivered by the next daemon.
 */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const logger = options.logger ?? silentLogger;
  const env = options.env ?? process.env;
  const installId = options.installId ?? (await ensureInstallId(options.stateDir));
  const notifier = desktopNotifier(env);
  let { config } = options;
  const status = new StatusFile(options.stateDir, options.configFile ?? "");
  const emit = (event: DaemonEvent) => {
    noteStatus(status, event);
    options.onEvent?.(event);
  };
  const runner = new Runner({
    config,
    stateDir: options.stateDir,
    installId,
    token: options.token,
    hidden: options.hidden ?? [],
    env,
    logger,
    notifier,
    ...(options.traceparentOf ? { traceparentOf: options.traceparentOf } : {}),
    onStart: (attempt) => emit({ type: "started", atMs: nowMs(), ...attempt }),
  });
  const { executors, workspaces } = await runner.describe();
  const proxyOf = ({ proxy }: DeviceConfig) => options.proxy ?? proxy;
  const proxy = proxyOf(config);
  const connection = connectDevice({
    url: options.url,
    token: options.token,
    installId,
    platform: options.platform ?? currentPlatform(),
    agentKinds: Object.keys(config.executors),
    executors,
    workspaces,
    maxConcurrency: config.maxConcurrency,
    keep: config.keep,
    stateDir: options.stateDir,
    capabilities: notifier === undefined ? [] : ["notification"],
    logger,
    onEvent: emit,
    prepare: async () => {
      const { ended, escaped, unreadable } = await runner.sweep();
      for (const { path, problem } of unreadable) {
        logger.warn(
          { path, error: problem },
          "cannot read a note of a running agent; it stays for the next start",
        );
      }
      if (ended.length === 0 && escaped === 0) return;
      logger.warn({ runs: ended, escaped }, "ended agents that an earlier daemon left running");
      emit({ type: "swept", atMs: nowMs(), runIds: ended, escaped });
    },
    admit: (assignment) => runner.admit(assignment),
    onAssignment: (assignment, context) => runner.run(assignment, context),
    ...(config.label === undefined ? {} : { label: config.label }),
    ...(options.appVersion === undefined ? {} : { appVersion: options.appVersion }),
    ...(options.tls === undefined ? {} : { tls: options.tls }),
    ...(proxy === undefined ? {} : { proxy }),
    ...(options.configProblem === undefined ? {} : { configProblem: options.configProblem }),
    machine: await machineFingerprint(installId),
    ...(options.timing === undefined ? {} : { timing: options.timing }),
  });
  const { configFile, stateDir } = options;
  if (configFile !== undefined && options.configProblem === undefined) {
    await keepLastGood(configFile, stateDir).catch(() => {});
  }
  const tell = (problem: string) => {
    status.set({ configProblem: problem });
    emit({ type: "configured", atMs: nowMs(), file: configFile ?? "", problem });
    if (problem !== "")
      logger.error(
        { file: configFile, problem },
        "the configuration is wrong; the one before it stays in force",
      );
  };
  if (options.configProblem !== undefined) tell(options.configProblem);
  const watch =
    configFile === undefined
      ? undefined
      : watchConfig({
          file: configFile,
          use: (read) => {
            const next = options.adjustConfig?.(read) ?? read;
            runner.reconfigure(next);
            config = next;
          },
          onGood: () => {
            void keepLastGood(configFile, stateDir).catch(() => {});
            void runner.describe().then((described) => {
              const nextProxy = proxyOf(config);
              connection.update({
                ...described,
                agentKinds: Object.keys(config.executors),
                maxConcurrency: config.maxConcurrency,
                keep: config.keep,
                configProblem: "",
                ...(config.label === undefined ? {} : { label: config.label }),
                ...(nextProxy === undefined ? {} : { proxy: nextProxy }),
              });
              tell("");
            });
          },
          onBad: (problem) => {
            connection.update({ configProblem: problem });
            tell(problem);
          },
        });
  const endReloads = watch && options.onReload?.(watch.reload);
  try {
    await untilStopped(connection, { ...options, killGraceMs: () => longestKillGraceMs(config) }, emit);
  } finally {
    endReloads?.();
    watch?.close();
    status.set({ connection: "stopped" });
    await status.settled();
  }
}

const longestKillGraceMs = ({ executors }: DeviceConfig) =>
  Math.max(0, ...Object.values(executors).map(({ killGraceMs }) => killGraceMs));

function noteStatus(status: StatusFile, event: DaemonEvent): void {
  if (event.type === "connected") status.set({ connection: "serving", reason: "" });
  else if (event.type === "retrying")
    status.set({ connection: "retrying", reason: event.reason.slice(0, 1000) });
  else if (event.type === "fatal") status.set({ connection: "ended", reason: event.message.slice(0, 1000) });
}

async function untilStopped(
  connection: DeviceConnection,
  options: DaemonOptions & { killGraceMs: () => number },
  emit: (event: DaemonEvent) => void,
): Promise<void> {
  const stop = () => {
    emit({
      type: "stopping",
      atMs: nowMs(),
      running: connection.running,
      unacknowledged: connection.unacknowledged,
    });
    void connection.close({
      finishMs: options.stopGraceMs ?? STOP_GRACE_MS,
      graceMs: options.killGraceMs() + KILL_MARGIN_MS,
      flushMs: options.flushMs ?? defaultClose.flushMs,
    });
  };
  options.signal.addEventListener("abort", stop, { once: true });
  if (options.signal.aborted) stop();
  try {
    await connection.closed;
  } finally {
    options.signal.removeEventListener("abort", stop);
  }
}
