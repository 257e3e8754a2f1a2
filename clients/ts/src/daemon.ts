import type { MessageInitShape } from "@bufbuild/protobuf";
import { connectDevice } from "./device/connection.ts";
import type { DeviceEvent } from "./device/events.ts";
import { type DeviceConnection, defaultClose } from "./device/options.ts";
import { nowMs, type Timing } from "./device/timing.ts";
import type { TlsOptions } from "./device/transport.ts";
import type { Assignment, Os, UpgradeInfoSchema } from "./gen/pinion/v1/device_pb.js";
import { currentOs, ensureInstallId } from "./identity.ts";
import { type Logger, silentLogger } from "./logger.ts";
import { machineFingerprint } from "./machine.ts";
import type { ProxySetting } from "./network/proxy.ts";
import type { DeviceConfig } from "./runner/config.ts";
import { keepLastGood, watchConfig } from "./runner/live-config.ts";
import { desktopNotifier, type Notifier } from "./runner/notification.ts";
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
  /** The latest lines of the log, for people who ask the server; absent: no lines. */
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
  const daemon = new Daemon(options, options.installId ?? (await ensureInstallId(options.stateDir)));
  const connection = await daemon.connect();
  // Before the wait for the disk: a change of the file meanwhile is a change, too.
  const endWatch = daemon.watchConfig(connection);
  options.upgrades?.begin({
    running: () => connection.running,
    refuseNew: () => connection.refuseNew(),
    config: () => daemon.config,
  });
  try {
    await daemon.tellStart();
    await untilStopped(connection, daemon, options);
  } finally {
    endWatch();
    await daemon.close();
  }
}

/** The parts of a running daemon, and the configuration in force. */
class Daemon {
  readonly #options: DaemonOptions;
  readonly #installId: string;
  readonly #logger: Logger;
  readonly #notifier: Notifier | undefined;
  readonly #status: StatusFile;
  readonly #runner: Runner;
  #config: DeviceConfig;

  constructor(options: DaemonOptions, installId: string) {
    const env = options.env ?? process.env;
    this.#options = options;
    this.#installId = installId;
    this.#config = options.config;
    this.#logger = options.logger ?? silentLogger;
    this.#notifier = desktopNotifier(env);
    this.#status = new StatusFile(options.stateDir, {
      configFile: options.configFile ?? "",
      takesUpgrades: options.upgrades !== undefined,
      environment: environmentFacts(env),
    });
    this.#runner = new Runner({
      config: options.config,
      stateDir: options.stateDir,
      installId,
      token: options.token,
      hidden: options.hidden ?? [],
      env,
      logger: this.#logger,
      notifier: this.#notifier,
      ...(options.traceparentOf ? { traceparentOf: options.traceparentOf } : {}),
      onStart: (attempt) => this.emit({ type: "started", atMs: nowMs(), ...attempt }),
    });
  }

  get config(): DeviceConfig {
    return this.#config;
  }

  emit(event: DaemonEvent): void {
    noteStatus(this.#status, event);
    this.#options.onEvent?.(event);
  }

  /** Opens the device's connection; attempts run from now on. */
  async connect(): Promise<DeviceConnection> {
    const options = this.#options;
    const described = await this.#describe();
    return connectDevice({
      ...described,
      url: options.url,
      token: options.token,
      installId: this.#installId,
      os: options.os ?? currentOs(),
      stateDir: options.stateDir,
      capabilities: this.#notifier === undefined ? [] : ["notification"],
      logger: this.#logger,
      onEvent: (event) => this.emit(event),
      prepare: () => this.#sweep(),
      admit: (assignment) => this.#runner.admit(assignment),
      onAssignment: (assignment, context) => this.#runner.run(assignment, context),
      ...(options.logExcerpt === undefined ? {} : { logExcerpt: options.logExcerpt }),
      ...(options.appVersion === undefined ? {} : { appVersion: options.appVersion }),
      ...(options.tls === undefined ? {} : { tls: options.tls }),
      ...(options.configProblem === undefined ? {} : { configProblem: options.configProblem }),
      machine: await machineFingerprint(this.#installId, options.stateDir),
      ...(options.timing === undefined ? {} : { timing: options.timing }),
    });
  }

  /** The configuration in force, as told to the server. */
  async #describe() {
    const { executors, workspaces } = await this.#runner.describe();
    const { label, keep, maxConcurrency } = this.#config;
    const proxy = this.#options.proxy ?? this.#config.proxy;
    const upgrade = this.#options.upgrades?.describe(this.#config);
    return {
      executors,
      workspaces,
      agentKinds: Object.keys(this.#config.executors),
      maxConcurrency,
      keep,
      ...(upgrade === undefined ? {} : { upgrade }),
      ...(label === undefined ? {} : { label }),
      ...(proxy === undefined ? {} : { proxy }),
    };
  }

  /** Ends the agents that an earlier daemon left running. */
  async #sweep(): Promise<void> {
    const { ended, escaped, unreadable } = await this.#runner.sweep();
    for (const { path, problem } of unreadable) {
      this.#logger.warn(
        { path, error: problem },
        "cannot read a note of a running agent; it stays for the next start",
      );
    }
    if (ended.length === 0 && escaped === 0) return;
    this.#logger.warn({ runs: ended, escaped }, "ended agents that an earlier daemon left running");
    this.emit({ type: "swept", atMs: nowMs(), workIds: ended, escaped });
  }

  /** Tells the state of the configuration at the start, and keeps a copy of a good file. */
  async tellStart(): Promise<void> {
    const { configProblem } = this.#options;
    if (configProblem === undefined) await this.#keepLastGood();
    else this.#tellConfig(configProblem);
  }

  #tellConfig(problem: string): void {
    const { configFile = "" } = this.#options;
    this.#status.set({ configProblem: problem });
    this.emit({ type: "configured", atMs: nowMs(), file: configFile, problem });
    if (problem === "") return;
    this.#logger.error(
      { file: configFile, problem },
      "the configuration is wrong; the one before it stays in force",
    );
  }

  async #keepLastGood(): Promise<void> {
    const { configFile, stateDir } = this.#options;
    if (configFile !== undefined) await keepLastGood(configFile, stateDir).catch(() => {});
  }

  /** Uses each new version of the configuration file, until the returned function is called. */
  watchConfig(connection: DeviceConnection): () => void {
    const { configFile, adjustConfig, onReload } = this.#options;
    if (configFile === undefined) return () => {};
    const watch = watchConfig({
      file: configFile,
      use: (read) => {
        const next = adjustConfig?.(read) ?? read;
        this.#runner.reconfigure(next);
        this.#config = next;
      },
      onGood: () => {
        void this.#keepLastGood();
        void this.#describe().then((described) => {
          connection.update({ ...described, configProblem: "" });
          this.#tellConfig("");
        });
      },
      onBad: (problem) => {
        connection.update({ configProblem: problem });
        this.#tellConfig(problem);
      },
    });
    const endReloads = onReload?.(watch.reload);
    return () => {
      endReloads?.();
      watch.close();
    };
  }

  async close(): Promise<void> {
    this.#status.set({ connection: "stopped" });
    await this.#status.settled();
  }
}

const longestKillGraceMs = ({ executors }: DeviceConfig) =>
  Math.max(0, ...Object.values(executors).map(({ killGraceMs }) => killGraceMs));

function noteStatus(status: StatusFile, event: DaemonEvent): void {
  if (event.type === "connected") status.set({ connection: "serving", reason: "" });
  if (event.type === "retrying") status.set({ connection: "retrying", reason: event.reason.slice(0, 1000) });
  if (event.type === "fatal") status.set({ connection: "ended", reason: event.message.slice(0, 1000) });
}

async function untilStopped(
  connection: DeviceConnection,
  daemon: Daemon,
  options: DaemonOptions,
): Promise<void> {
  const stop = () => {
    daemon.emit({
      type: "stopping",
      atMs: nowMs(),
      running: connection.running,
      unacknowledged: connection.unacknowledged,
    });
    void connection.close({
      finishMs: options.stopGraceMs ?? STOP_GRACE_MS,
      graceMs: longestKillGraceMs(daemon.config) + KILL_MARGIN_MS,
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
