import { durationMs } from "@bufbuild/protobuf/wkt";
import { renameToken } from "../cell.ts";
import { type Completion, DrainReason, type Welcome } from "../gen/pinion/v1/device_pb.js";
import { replaceToken } from "../identity.ts";
import { type Logger, silentLogger } from "../logger.ts";
import type { KeptResults } from "../outbox/kept.ts";
import { Attempts } from "./attempts/attempts.ts";
import { Questions } from "./attempts/questions.ts";
import { Ending } from "./ending.ts";
import { DeviceError, type DeviceErrorReason, messageOf } from "./errors.ts";
import type { DeviceEvent, DeviceEventBody } from "./events.ts";
import { type HeldAttempts, heartbeatList, helloOf } from "./hello.ts";
import { type ConnectionState, Lifecycle } from "./lifecycle.ts";
import {
  type CloseOptions,
  checkOptions,
  type DeviceChanges,
  type DeviceConnection,
  type DeviceOptions,
  defaultClose,
  isSameDescription,
  isTokenExposed,
} from "./options.ts";
import { decide, type History } from "./outcome.ts";
import { type Acknowledged, Delivery } from "./results/delivery.ts";
import { drainedEvent, ServerMessages } from "./server-messages.ts";
import { Session } from "./session.ts";
import { openStateDirectory } from "./state-directory.ts";
import { defaultTiming, fallbackHeartbeatMs, nowMs, type SessionLimits, type Timing } from "./timing.ts";
import type { Endpoint } from "./transport.ts";
import { watchForWakeUp } from "./wake.ts";

/** Time for the server to end its side of a stream after this side has ended. */
const GOODBYE_MS = 500;
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
  readonly #messages: ServerMessages;
  readonly #questions = new Questions((message) => this.#session?.send(message) ?? false);
  #serverCapabilities = new Set<string>();
  readonly closed: Promise<void>;
  readonly #end = new Ending();
  #delivery: Delivery | undefined;
  #session: Session | undefined;
  #history: History = { failures: 0, refusals: 0 };
  #sessionEpoch = 0n;
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
    this.closed = this.#end.promise;
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
    this.#messages = new ServerMessages({
      attempts: this.#attempts,
      questions: this.#questions,
      delivery: () => this.#delivery,
      logExcerpt: (linesMax) => this.#options.logExcerpt?.(linesMax),
      output: (message, bytes) => this.#session?.output(message, bytes),
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
    const { signal, url } = this.#options;
    if (isTokenExposed(url)) {
      this.#logger.warn({ url }, "the token is sent without encryption; use an https:// URL");
    }
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
    const before = this.#options;
    this.#options = { ...before, ...changes };
    if (isSameDescription(before, this.#options)) return;
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
      const { lock, outbox, entries, setAside, kept } = await openStateDirectory(this.#options);
      [this.#lock, this.#kept] = [lock, kept];
      this.#delivery = new Delivery({
        ...{ outbox, kept, entries },
        ...{ endpoint: this.#endpoint, timing: this.#timing, logger: this.#logger },
        onAcknowledged: (acknowledged) => this.#acknowledged(acknowledged),
        onSetAside: (aside) => this.#setAside(aside),
      });
      for (const aside of setAside) this.#setAside(aside);
    } catch (error) {
      return this.#notPrepared(error);
    }
    if (this.#closing !== undefined) return;
    const { wakeCheckMs: checkMs, wakeJumpMs: jumpMs } = this.#timing;
    this.#wake = watchForWakeUp({ checkMs, jumpMs, onWake: (sleptMs) => this.#woke(sleptMs) });
    if (this.#lifecycle.fire("started")) this.#dial();
  }

  #notPrepared(error: unknown): void {
    if (error instanceof DeviceError) return void this.#fail(error.reason, error.message);
    const [reason, inMs] = [messageOf(error), this.#timing.backoffCapMs];
    this.#logger.error({ inMs }, reason);
    this.#emit({ type: "retrying", inMs, reason, failures: ++this.#history.failures });
    this.#lifecycle.after(inMs, () => {
      if (this.#closing === undefined) this.#starting = this.#prepare();
    });
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
        hello: () => helloOf(this.#options, this.#held(), this.#sessionEpoch),
        attempts: () => heartbeatList(this.#held()),
        onWelcome: (welcome, limits) => this.#welcomed(welcome, limits),
        onMessage: (message) => this.#messages.received(message, nowMs()),
        onDrain: (drain) => this.#emit(drainedEvent(drain)),
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
    this.#endpoint.token = renameToken(before, cell);
    try {
      await replaceToken(this.#options.stateDir, { before, after: this.#endpoint.token });
    } catch (error) {
      this.#logger.warn({ error: messageOf(error) }, "cannot store the token with the new cell's name");
    }
  }

  #due(): void {
    if (this.#lifecycle.fire("due")) this.#dial();
  }

  #held(): HeldAttempts {
    return { running: this.#attempts.listed(), finished: this.#delivery?.held() ?? [] };
  }

  #welcomed(welcome: Welcome, limits: SessionLimits): void {
    this.#attempts.limits = limits;
    this.#serverCapabilities = new Set(welcome.capabilities);
    this.#sessionEpoch = welcome.sessionEpoch;
    const { incarnation, serverTime, timers } = welcome;
    const heartbeat = timers?.heartbeatInterval;
    this.#emit({
      type: "connected",
      deviceId: welcome.deviceId,
      sessionEpoch: welcome.sessionEpoch,
      replicaId: welcome.replicaId,
      heartbeatMs: heartbeat === undefined ? fallbackHeartbeatMs : durationMs(heartbeat),
      daemonVersion: welcome.daemonVersion,
    });
    // The database first: ALREADY_STORED is its word. Verdicts next: stored results are not sent.
    this.#delivery?.storedIn(incarnation, { isWelcome: true, serverTime });
    for (const { attemptToken, verdict } of welcome.verdicts) this.#messages.obey(attemptToken, verdict);
    const send = (value: Completion) => this.#session?.send({ case: "complete", value }) ?? false;
    this.#delivery?.attach(send, limits);
    this.#questions.opened(this.#serverCapabilities.has("questions"));
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
    void this.#shutdown(defaultClose).then(() => this.#end.reject(new DeviceError(error, message)));
  }

  async #close(options: Required<CloseOptions>): Promise<void> {
    await this.#starting;
    await this.#attempts.idle(options.finishMs);
    await this.#attempts.stop(options.graceMs);
    if (this.#session?.isOpen === true) await this.#delivery?.flushed(options.flushMs);
    await this.#shutdown(options);
    this.#end.resolve();
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
    await this.#session?.leave("closed by the device", GOODBYE_MS);
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
