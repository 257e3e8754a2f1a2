import { join } from "node:path";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { renameToken } from "../cell.ts";
import type { ExecutorInfoSchema, WorkspaceInfoSchema } from "../gen/pinion/v1/activity_pb.js";
import {
  type AttemptRef,
  AttemptRefSchema,
  CompletionVerdict,
  type ConnectResponse,
  DrainReason,
  HeldAttemptState,
  HeldVerdict,
  type Hello,
  HelloSchema,
  LogExcerptSchema,
  type LogRequest,
  type Os,
  type UpgradeInfoSchema,
  type Welcome,
} from "../gen/pinion/v1/device_pb.js";
import { findIdentity, saveIdentity } from "../identity.ts";
import { type Logger, silentLogger } from "../logger.ts";
import type { MachineFingerprint } from "../machine.ts";
import { type ProxySetting, proxyErrorOf, proxyFor } from "../network/proxy.ts";
import { type KeepLimits, KeptResults } from "../outbox/kept.ts";
import { lockStateDir } from "../outbox/lock.ts";
import { Outbox } from "../outbox/outbox.ts";
import { ensurePrivateDirectory } from "../private-directory.ts";
import { type Admission, type AssignmentHandler, Attempts } from "./attempts.ts";
import { truncateUtf8 } from "./completion.ts";
import { type Acknowledged, Delivery } from "./delivery.ts";
import { DeviceError, type DeviceErrorReason, messageOf } from "./errors.ts";
import type { DeviceEvent, DeviceEventBody } from "./events.ts";
import { type ConnectionState, Lifecycle } from "./lifecycle.ts";
import { decide, type History } from "./outcome.ts";
import { Questions } from "./questions.ts";
import { Session } from "./session.ts";
import { defaultTiming, fallbackHeartbeatMs, nowMs, type SessionLimits, type Timing } from "./timing.ts";
import { type Endpoint, parseEndpoint, type TlsOptions } from "./transport.ts";
import { watchForWakeUp } from "./wake.ts";

/** The client's version, sent as `app_version` unless the caller gives another. */
export const CLIENT_VERSION = "0.1.0";

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
/** Time for the server to end its side of a stream after this side has ended. */
const GOODBYE_MS = 500;
/**
 * The protocol's bound on the attempts listed in a hello or a heartbeat. Results beyond the bound
 * are sent without being listed.
 */
const LISTED_MAX = 1000;
/** Bound of a protocol field rule, in bytes. */
const CONFIG_PROBLEM_BYTES_MAX = 1000;

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

/**
 * Connects a device and reconnects after every failure (refused connections, silent networks, a
 * laptop's sleep, a server's restart) until `close` or until the server gives a final refusal.
 */
export function connectDevice(options: DeviceOptions): DeviceConnection {
  const connection = new Connection(options);
  connection.start();
  return connection;
}

class Connection implements DeviceConnection {
  #options: DeviceOptions;
  readonly #endpoint: Endpoint;
  #kept: KeptResults | undefined;
  readonly #timing: Timing;
  readonly #logger: Logger;
  readonly #lifecycle: Lifecycle;
  readonly #attempts: Attempts;
  readonly #questions = new Questions((message) => this.#session?.send(message) ?? false);
  #serverCapabilities = new Set<string>();
  readonly closed: Promise<void>;
  readonly #resolveClosed: () => void;
  readonly #rejectClosed: (error: DeviceError) => void;
  #delivery: Delivery | undefined;
  #session: Session | undefined;
  #history: History = { failures: 0, refusals: 0 };
  #lock: { release(): Promise<void> } | undefined;
  #wake: { stop(): void } | undefined;
  #closing: Promise<void> | undefined;
  #starting: Promise<void> | undefined;

  constructor(options: DeviceOptions) {
    checkOptions(options);
    this.#options = options;
    this.#endpoint = {
      url: options.url,
      token: options.token,
      ...(options.tls === undefined ? {} : { tls: options.tls }),
      ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
    };
    this.#timing = { ...defaultTiming, ...options.timing };
    this.#logger = options.logger ?? silentLogger;
    let settle: { resolve: () => void; reject: (error: DeviceError) => void };
    this.closed = new Promise((resolve, reject) => {
      settle = { resolve, reject };
    });
    this.#resolveClosed = () => settle.resolve();
    this.#rejectClosed = (error) => settle.reject(error);
    // A caller may handle only the `fatal` event; an unhandled rejection of the promise must not
    // end the process.
    this.closed.catch(() => {});
    this.#lifecycle = new Lifecycle((state, from) => this.#emit({ type: "state", state, from }));
    this.#attempts = new Attempts({
      admit: options.admit ?? (() => undefined),
      handle: options.onAssignment,
      host: {
        maxConcurrency: options.maxConcurrency ?? 1,
        stream: () => (this.#session?.isOpen === true ? this.#session : undefined),
        send: (message) => this.#session?.send(message) ?? false,
        sendOutput: (message, bytes) => this.#session?.output(message, bytes) ?? false,
        takesActivities: () => this.#serverCapabilities.has("activity"),
        ask: (attempt, question, options) => this.#questions.ask(attempt, question, options),
        deliver: async (completion, finishedAtMs, watcher) => {
          await this.#delivery?.add(completion, finishedAtMs, watcher);
        },
        forgottenResult: (assignment) => this.#delivery?.forgottenResult(assignment),
        isHeld: (attemptToken) => this.#delivery?.has(attemptToken) ?? false,
        diskProblem: () => this.#delivery?.diskProblem,
        resend: (attemptToken) => {
          const isHeld = this.#delivery?.has(attemptToken) ?? false;
          if (isHeld) this.#delivery?.sendAgain(attemptToken);
          return isHeld;
        },
        emit: (event, atMs) => this.#emit(event, atMs),
      },
    });
  }

  get state(): ConnectionState {
    return this.#lifecycle.state;
  }

  get running(): number {
    return this.#attempts.listed().length;
  }

  get unacknowledged(): number {
    return this.#delivery?.held().length ?? 0;
  }

  start(): void {
    if (isTokenExposed(this.#options.url)) {
      this.#logger.warn(
        { url: this.#options.url },
        "the token is sent without encryption; use an https:// URL",
      );
    }
    const { signal } = this.#options;
    const onAbort = () => void this.close();
    signal?.addEventListener("abort", onAbort, { once: true });
    const release = () => signal?.removeEventListener("abort", onAbort);
    this.closed.then(release, release);
    this.#starting = this.#prepare();
    if (signal?.aborted === true) onAbort();
  }

  update({ keep, ...changes }: DeviceChanges): void {
    if (keep !== undefined) {
      this.#kept?.limit(keep).catch((error: unknown) => {
        this.#logger.warn({ error: messageOf(error) }, "cannot drop kept results beyond the new bounds");
      });
    }
    const before = JSON.stringify(this.#options, comparable);
    this.#options = { ...this.#options, ...changes };
    if (JSON.stringify(this.#options, comparable) === before) return;
    this.#attempts.maxConcurrency = this.#options.maxConcurrency ?? 1;
    const { proxy } = this.#options;
    if (proxy === undefined) delete this.#endpoint.proxy;
    else this.#endpoint.proxy = proxy;
    // Not a wake-up, but dialled without delay in the same way.
    this.#session?.interrupt("the configuration changed", { isWakeUp: true });
  }

  refuseNew(): void {
    this.#attempts.refuseNew();
  }

  close(options: CloseOptions = {}): Promise<void> {
    this.#closing ??= this.#close({ ...defaultClose, ...options });
    return this.#closing;
  }

  async #prepare(): Promise<void> {
    try {
      await ensurePrivateDirectory(this.#options.stateDir);
      this.#lock = await lockStateDir(this.#options.stateDir);
      await this.#options.prepare?.();
      const { outbox, entries, setAside } = await Outbox.open(join(this.#options.stateDir, "outbox"));
      const kept = await KeptResults.open(join(this.#options.stateDir, "outbox"), this.#options.keep);
      this.#kept = kept;
      this.#delivery = new Delivery({
        outbox,
        kept,
        entries,
        endpoint: this.#endpoint,
        timing: this.#timing,
        logger: this.#logger,
        onAcknowledged: (acknowledged) => this.#acknowledged(acknowledged),
        onSetAside: (aside) => this.#setAside(aside),
      });
      for (const aside of setAside) this.#setAside(aside);
    } catch (error) {
      if (error instanceof DeviceError) this.#fail(error.reason, error.message);
      else this.#fail("unusable", `cannot use ${this.#options.stateDir}: ${messageOf(error)}`);
      return;
    }
    if (this.#closing !== undefined) return;
    this.#wake = watchForWakeUp({
      checkMs: this.#timing.wakeCheckMs,
      jumpMs: this.#timing.wakeJumpMs,
      onWake: (sleptMs) => this.#woke(sleptMs),
    });
    if (this.#lifecycle.fire("started")) this.#dial();
  }

  /** In state `dialing`. A defect ends the session alone: the device connects again. */
  #dial(): void {
    this.#runSession().catch((error: unknown) => {
      this.#logger.error({ error: messageOf(error) }, "a session ended with an unexpected error");
      this.#session = undefined;
      if (!this.#lifecycle.fire("ended")) return;
      this.#lifecycle.after(this.#timing.backoffCapMs, () => this.#due());
    });
  }

  /** Runs one session and handles the outcome. */
  async #runSession(): Promise<void> {
    const session = new Session({
      endpoint: this.#endpoint,
      lifecycle: this.#lifecycle,
      timing: this.#timing,
      host: {
        hello: () => this.#hello(),
        attempts: () => this.#heartbeatList(),
        onWelcome: (welcome, limits) => this.#welcomed(welcome, limits),
        onMessage: (message) => this.#received(message),
        onDrain: (drain) =>
          this.#emit({
            type: "drained",
            reason: DrainReason[drain.reason]?.toLowerCase() ?? String(drain.reason),
            reconnectAfterMs: drain.reconnectAfter === undefined ? 0 : durationMs(drain.reconnectAfter),
            message: drain.message,
            ...(drain.cell === "" ? {} : { cell: drain.cell }),
          }),
      },
    });
    this.#session = session;
    const outcome = await session.run();
    this.#session = undefined;
    this.#delivery?.detach(session.end);
    if (this.#lifecycle.state === "closed" || this.#closing !== undefined) return;
    const decision = decide(outcome, this.#history, this.#timing);
    if (outcome.kind === "served" || outcome.kind === "drained") {
      const reason = outcome.kind === "served" ? outcome.reason : "drained";
      this.#emit({ type: "disconnected", reason, heldMs: Math.round(outcome.heldMs) });
    }
    if (outcome.kind === "drained" && outcome.cell !== "") {
      await this.#follow(outcome.cell);
      this.#logger.info({ cell: outcome.cell }, "the org moved to another cell");
    }
    if (decision.next === "close") {
      this.#fail(decision.error, decision.message);
      return;
    }
    this.#history = decision.history;
    if (!this.#lifecycle.fire("ended")) return;
    const { delayMs, reason } = decision;
    this.#emit({ type: "retrying", inMs: Math.round(delayMs), reason, failures: this.#history.failures });
    if (outcome.kind === "drained" && outcome.drain === DrainReason.REPLACED) {
      this.#logger.warn(
        { delayMs: Math.round(delayMs) },
        "another daemon has connected as this device: two with one identity replace each other; stop one, or enrol it as a device of its own",
      );
    } else this.#logger.info({ delayMs: Math.round(delayMs), reason }, "disconnected; connecting again");
    this.#lifecycle.after(delayMs, () => this.#due());
  }

  /** Puts the cell's name into the token, also into the stored identity. */
  async #follow(cell: string): Promise<void> {
    const before = this.#endpoint.token;
    // In place: the delivery of results has the same endpoint.
    const token = renameToken(before, cell);
    this.#endpoint.token = token;
    try {
      const identity = await findIdentity(this.#options.stateDir);
      if (identity?.token === before) await saveIdentity(this.#options.stateDir, { ...identity, token });
    } catch (error) {
      this.#logger.warn({ error: messageOf(error) }, "cannot store the token with the new cell's name");
    }
  }

  #due(): void {
    if (this.#lifecycle.fire("due")) this.#dial();
  }

  /**
   * Running attempts, and ended attempts without an acknowledgement: the server has the latter as
   * open and would count them as lost.
   */
  #heartbeatList(): AttemptRef[] {
    const running = this.#attempts.listed();
    const tokens = new Set(running.map(({ attemptToken }) => attemptToken));
    const ended = (this.#delivery?.held() ?? []).filter(({ attemptToken }) => !tokens.has(attemptToken));
    return [...running, ...ended]
      .slice(0, LISTED_MAX)
      .map(({ workId, attemptToken }) => create(AttemptRefSchema, { workId, attemptToken }));
  }

  #hello(): Hello {
    const running = this.#attempts
      .listed()
      .filter(({ attemptToken }) => this.#delivery?.has(attemptToken) !== true)
      .map(({ workId, attemptToken }) => ({ workId, attemptToken, state: HeldAttemptState.RUNNING }));
    const finished = (this.#delivery?.held() ?? []).map(({ workId, attemptToken }) => ({
      workId,
      attemptToken,
      state: HeldAttemptState.FINISHED,
    }));
    return create(HelloSchema, {
      installId: this.#options.installId,
      os: this.#options.os,
      appVersion: this.#options.appVersion ?? CLIENT_VERSION,
      label: this.#options.label ?? "",
      agentKinds: this.#options.agentKinds,
      capabilities: [
        ...(this.#options.capabilities ?? []),
        ...(this.#options.logExcerpt === undefined ? [] : ["log"]),
      ],
      maxConcurrency: this.#options.maxConcurrency ?? 1,
      held: [...running, ...finished].slice(0, LISTED_MAX),
      configProblem: truncateUtf8(this.#options.configProblem ?? "", CONFIG_PROBLEM_BYTES_MAX).text,
      ...(this.#options.machine === undefined ? {} : { machine: this.#options.machine }),
      ...(this.#options.upgrade === undefined ? {} : { upgrade: this.#options.upgrade }),
      executors: this.#options.executors ?? [],
      workspaces: this.#options.workspaces ?? [],
    });
  }

  #welcomed(welcome: Welcome, limits: SessionLimits): void {
    this.#attempts.limits = limits;
    this.#serverCapabilities = new Set(welcome.capabilities);
    const heartbeat = welcome.timers?.heartbeatInterval;
    this.#emit({
      type: "connected",
      deviceId: welcome.deviceId,
      sessionEpoch: welcome.sessionEpoch,
      replicaId: welcome.replicaId,
      heartbeatMs: heartbeat === undefined ? fallbackHeartbeatMs : durationMs(heartbeat),
      daemonVersion: welcome.daemonVersion,
    });
    // Verdicts before deliveries, so stored results are not sent again.
    for (const { attemptToken, verdict } of welcome.verdicts) this.#obey(attemptToken, verdict);
    this.#delivery?.storedIn(welcome.incarnation, { isWelcome: true });
    this.#delivery?.attach((completion) => {
      return this.#session?.send({ case: "complete", value: completion }) ?? false;
    }, limits);
    this.#questions.opened(this.#serverCapabilities.has("questions"));
  }

  /** A verdict is about the attempt as listed in the hello; the attempt may have finished since. */
  #obey(attemptToken: string, verdict: HeldVerdict): void {
    const told = { attemptToken, windowId: "", message: "" };
    switch (verdict) {
      case HeldVerdict.ABORT:
        // A result finished since is sent all the same; its own verdict follows.
        this.#attempts.supersede(attemptToken);
        return;
      case HeldVerdict.ALREADY_STORED:
        this.#attempts.supersede(attemptToken);
        void this.#delivery?.acknowledge({ ...told, verdict: CompletionVerdict.ALREADY_STORED });
        return;
      case HeldVerdict.CONTINUE:
      case HeldVerdict.SEND_RESULT:
      case HeldVerdict.UNSPECIFIED:
        // Running attempts go on, and a new stream sends the whole outbox anyway.
        return;
    }
  }

  #received(message: ConnectResponse): void {
    const { message: body } = message;
    switch (body.case) {
      case "assignment":
        void this.#attempts.assign(body.value, nowMs());
        return;
      case "cancel":
        this.#attempts.cancel(body.value);
        return;
      case "completionAck":
        this.#delivery?.storedIn(body.value.incarnation, { isWelcome: false });
        void this.#delivery?.acknowledge(body.value);
        return;
      case "answer":
        this.#questions.answered(body.value);
        return;
      case "logRequest":
        this.#sendLog(body.value);
        return;
      // `heartbeatAck` only feeds the watchdog; `welcome` and `drain` are handled by the session.
      case "heartbeatAck":
      case "welcome":
      case "drain":
      case undefined:
        return;
    }
  }

  /** On the lane of output: a log never delays a heartbeat or a result. */
  #sendLog({ requestId, linesMax }: LogRequest): void {
    const excerpt = this.#options.logExcerpt?.(linesMax);
    if (excerpt === undefined) return;
    const value = create(LogExcerptSchema, { requestId, ...excerpt });
    this.#session?.output({ case: "logExcerpt", value }, Buffer.byteLength(excerpt.text));
  }

  #acknowledged({ entry, watcher, verdict, windowId, message }: Acknowledged): void {
    const storeMs = nowMs() - entry.finishedAtMs;
    const { workId, attemptToken } = entry;
    this.#emit({ type: "acknowledged", workId, attemptToken, watcher, verdict, windowId, message, storeMs });
    if (verdict === "invalid") this.#logger.error({ workId, message }, "the server turned a result down");
  }

  #setAside(aside: { path: string; problem: string }): void {
    this.#logger.warn({ path: aside.path, problem: aside.problem }, "a result was set aside");
    this.#emit({ type: "set_aside", ...aside });
  }

  /** After a sleep the stream is most likely broken without an error: connect again first. */
  #woke(sleptMs: number): void {
    this.#emit({ type: "woke", sleptMs });
    this.#logger.info({ sleptMs }, "the machine slept; connecting again");
    this.#session?.interrupt("the machine slept", { isWakeUp: true });
    this.#due();
  }

  #fail(error: DeviceErrorReason, message: string): void {
    if (!this.#lifecycle.fire("failed")) return;
    this.#logger.error({ error }, message);
    this.#emit({ type: "fatal", error, message });
    void this.#shutdown(defaultClose).then(() => this.#rejectClosed(new DeviceError(error, message)));
  }

  async #close(options: Required<CloseOptions>): Promise<void> {
    await this.#starting;
    await this.#attempts.idle(options.finishMs);
    await this.#attempts.stop(options.graceMs);
    if (this.#session?.isOpen === true) await this.#delivery?.flushed(options.flushMs);
    await this.#shutdown(options);
    this.#resolveClosed();
  }

  /** Releases everything; running attempts end within the grace. */
  async #shutdown(options: Required<CloseOptions>): Promise<void> {
    this.#wake?.stop();
    await this.#attempts.stop(options.graceMs);
    this.#delivery?.stop();
    await this.#goodbye();
    this.#lifecycle.fire("stopped");
    await this.#lock?.release();
    this.#lock = undefined;
  }

  async #goodbye(): Promise<void> {
    const session = this.#session;
    if (session === undefined) return;
    await session.leave("closed by the device", GOODBYE_MS);
  }

  #emit(event: DeviceEventBody, atMs = nowMs()): void {
    try {
      this.#options.onEvent?.({ ...event, atMs } as DeviceEvent);
    } catch (error) {
      // A failing display must not fail a run.
      this.#logger.error({ event: event.type, error: messageOf(error) }, "onEvent threw");
    }
  }
}

/** Functions, signals and secrets are left out of the comparison. */
function comparable(key: string, value: unknown): unknown {
  return ["signal", "logger", "tls", "token"].includes(key) || typeof value === "bigint" ? undefined : value;
}

function isTokenExposed(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  return protocol === "http:" && !/^(localhost|127\..*|\[::1\])$/.test(hostname);
}

function checkOptions(options: DeviceOptions): void {
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
