import type { MessageInitShape } from "@bufbuild/protobuf";
import { connectDevice, type DeviceConnection, defaultClose } from "./device/connection.ts";
import type { DeviceEvent } from "./device/events.ts";
import { nowMs, type Timing } from "./device/timing.ts";
import type { TlsOptions } from "./device/transport.ts";
import type { Assignment, Os, UpgradeInfoSchema } from "./gen/pinion/v1/device_pb.js";
import { currentOs, ensureInstallId } from "./identity.ts";
import { type Logger, silentLogger } from "./logger.ts";
import { machineFingerprint } from "./machine.ts";
import type { ProxySetting } from "./network/proxy.ts";
import type { DeviceConfig } from "./runner/config.ts";
import { keepLastGood, watchConfig } from "./runner/live-config.ts";
import { desktopNotifier } from "./runner/notification.ts";
import { Runner } from "./runner/runner.ts";
import { environmentFacts, StatusFile } from "./status-file.ts";

/** Events of a daemon: those of the connection and of the runner. */
export type DaemonEvent =
  | DeviceEvent
  /** An agent's process was started. */
  | {
      type: "started";
      atMs: number;
      workId: string;
      attemptToken: string;
      pid: number;
      /** The executor's kind. */
      executor: string;
    }
  /**
   * The configuration was read again. `problem`: error of the file; the previous configuration
   * stays in force. Empty: no error.
   */
  | { type: "configured"; atMs: number; file: string; problem: string }
  /** Processes of an earlier daemon were ended; emitted only if there were any. */
  | { type: "swept"; atMs: number; workIds: string[]; escaped: number }
  /** The daemon refuses new work and ends the running attempts. */
  | { type: "stopping"; atMs: number; running: number; unacknowledged: number };

export interface DaemonOptions {
  url: string;
  /** The device's token, from `enroll`. */
  token: string;
  stateDir: string;
  config: DeviceConfig;
  /**
   * The configuration file. The daemon reads the file again after a change and on `reload`. While
   * the file has errors, the previous configuration stays in force.
   */
  configFile?: string;
  /** Error of the file at the start, if `config` is an earlier version; see `loadLastingConfig`. */
  configProblem?: string;
  /** The caller's changes to a configuration read from the file. */
  adjustConfig?: (config: DeviceConfig) => DeviceConfig;
  /**
   * Registers a function for reading the file again; returns a function for removing the
   * registration.
   */
  onReload?: (reload: () => void) => () => void;
  /** Stops the daemon gracefully. */
  signal: AbortSignal;
  logger?: Logger;
  /** Called for every event; must not throw and must not wait. */
  onEvent?: (event: DaemonEvent) => void;
  /** Left out: the id in the state directory (see `ensureInstallId`). */
  installId?: string;
  os?: Os;
  appVersion?: string;
  tls?: TlsOptions;
  /**
   * Takes precedence over the configuration's `proxy`, then HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
   * NO_PROXY.
   */
  proxy?: ProxySetting;
  /**
   * Time in ms for running agents to end by themselves after a stop; default 3 s. Then agents are
   * ended: SIGTERM, and SIGKILL after their `kill_grace`.
   */
  stopGraceMs?: number;
  /** Time in ms for acknowledgements at a stop; default 5 s. The rest waits for the next start. */
  flushMs?: number;
  /**
   * W3C trace context of a program, passed as TRACEPARENT. Left out: the assignment's context, so a
   * program's spans are siblings of the daemon's. A daemon with spans of its own gives the context
   * of its span.
   */
  traceparentOf?: (assignment: Assignment) => string;
  /**
   * Keeps the daemon's program up to date: describes how for the server, and gets a daemon's
   * control once its connection exists.
   */
  upgrades?: {
    describe(config: DeviceConfig): MessageInitShape<typeof UpgradeInfoSchema>;
    begin(control: DaemonControl): void;
  };
  /** The latest lines of the log, for people who ask by the server. Left out: the daemon gives none. */
  logExcerpt?: (linesMax: number) => { text: string; isTruncated: boolean };
  /** Files and directories, besides the state, hidden from programs with `isolate = true`. */
  hidden?: string[];
  /**
   * Source of the variables allowed by an agent's executor. Default: this process's environment.
   */
  env?: NodeJS.ProcessEnv;
  /** For tests and unusual networks. */
  timing?: Partial<Timing>;
}

/** A daemon as seen by the replacement of its program. */
export interface DaemonControl {
  /** Number of attempts in progress. */
  running(): number;
  /** Refuses new work from now on; running attempts go on, and the server offers the work again. */
  refuseNew(): void;
  /** The configuration in force. */
  config(): DeviceConfig;
}

const STOP_GRACE_MS = 3_000;
/**
 * Time in ms from the SIGKILL of an agent to the end of its attempt: the system, the drain of
 * pipes, the outbox.
 */
const KILL_MARGIN_MS = 5_000;

/**
 * Runs the daemon: connects, runs assignments as local programs and reconnects until stopped.
 * Resolves after a graceful stop; rejects with a DeviceError on a final error (token refused,
 * device removed, second daemon).
 *
 * At a stop the daemon refuses new work, ends attempts still running after `stopGraceMs`, reports
 * these as failed ("daemon stopped") and waits at most `flushMs` for acknowledgements. The next
 * daemon delivers the rest.
 */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const logger = options.logger ?? silentLogger;
  const env = options.env ?? process.env;
  const installId = options.installId ?? (await ensureInstallId(options.stateDir));
  const notifier = desktopNotifier(env);
  let { config } = options;
  const status = new StatusFile(options.stateDir, {
    configFile: options.configFile ?? "",
    takesUpgrades: options.upgrades !== undefined,
    environment: environmentFacts(env),
  });
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
    os: options.os ?? currentOs(),
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
      emit({ type: "swept", atMs: nowMs(), workIds: ended, escaped });
    },
    admit: (assignment) => runner.admit(assignment),
    onAssignment: (assignment, context) => runner.run(assignment, context),
    ...(options.upgrades ? { upgrade: options.upgrades.describe(config) } : {}),
    ...(options.logExcerpt === undefined ? {} : { logExcerpt: options.logExcerpt }),
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
                ...(options.upgrades ? { upgrade: options.upgrades.describe(config) } : {}),
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
  options.upgrades?.begin({
    running: () => connection.running,
    refuseNew: () => connection.refuseNew(),
    config: () => config,
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
