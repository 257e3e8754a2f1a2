import { create } from "@bufbuild/protobuf";
import { type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import {
  type AttemptRef,
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  type Drain,
  DrainReason,
  type Hello,
  type Welcome,
} from "../gen/pinion/v1/device_pb.js";
import type { DeviceErrorReason } from "./errors.ts";
import type { Lifecycle } from "./lifecycle.ts";
import { Outbound } from "./outbound.ts";
import type { SessionOutcome } from "./outcome.ts";
import {
  defaultLimits,
  fallbackHeartbeatMs,
  fallbackTtlMs,
  type SessionLimits,
  type Timing,
} from "./timing.ts";
import { type DeviceStream, type Endpoint, openStream, type StreamEnd } from "./transport.ts";

/** Functions of the connection used by a session. */
export interface SessionHost {
  hello(): Hello;
  /** Attempts in progress or not acknowledged, for a heartbeat. */
  attempts(): AttemptRef[];
  onWelcome(welcome: Welcome, limits: SessionLimits): void;
  onMessage(message: ConnectResponse): void;
  onDrain(drain: Drain): void;
}

/** Stream statuses with the meaning of a refusal. `decide` tries again a few times. */
const refusals: Partial<Record<status, { error: DeviceErrorReason; advice: string }>> = {
  [status.UNAUTHENTICATED]: {
    error: "unauthenticated",
    advice: "the server does not take this token; enrol a device again, give a fleet worker a good one",
  },
  [status.PERMISSION_DENIED]: {
    error: "unauthenticated",
    advice:
      "the token is good, but not for this installation; enrol a device again, give a fleet worker another state directory",
  },
  [status.INVALID_ARGUMENT]: {
    error: "incompatible",
    advice: "the server turned this device's greeting down; check its version and configuration",
  },
};

/**
 * One session: a stream from its dial to its end. `run` resolves to the outcome and never rejects;
 * by then the stream, its channel and the timers are released.
 */
export class Session {
  readonly #endpoint: Endpoint;
  readonly #lifecycle: Lifecycle;
  readonly #timing: Timing;
  readonly #host: SessionHost;
  readonly #outbound: Outbound;
  #stream: DeviceStream | undefined;
  #settle: ((outcome: SessionOutcome) => void) | undefined;
  #welcomedAt: number | undefined;
  #heardAt = 0;
  #drain: Drain | undefined;
  #drainedAt = 0;
  #heartbeats = 0n;
  #end: StreamEnd | undefined;
  #onLeft: (() => void) | undefined;

  constructor(options: { endpoint: Endpoint; lifecycle: Lifecycle; timing: Timing; host: SessionHost }) {
    this.#endpoint = options.endpoint;
    this.#lifecycle = options.lifecycle;
    this.#timing = options.timing;
    this.#host = options.host;
    this.#outbound = new Outbound(
      (message, taken) => this.#stream?.write(message, taken),
      () => this.#finish({ reason: "the server does not read its stream" }),
    );
  }

  /** gRPC status of the stream's end, if the server ended the stream. */
  get end(): StreamEnd | undefined {
    return this.#end;
  }

  get isOpen(): boolean {
    return this.#welcomedAt !== undefined && this.#settle !== undefined && this.#drain === undefined;
  }

  /** Runs the session. Call once, in state `dialing`. */
  run(): Promise<SessionOutcome> {
    return new Promise((resolve) => {
      this.#settle = resolve;
      const ms = this.#timing.dialDeadlineMs;
      this.#lifecycle.after(ms, () =>
        this.#finish({ reason: `no connection within ${ms} ms${this.#stream?.via ?? ""}` }),
      );
      try {
        this.#stream = openStream(this.#endpoint, {
          onConnected: () => this.#connected(),
          onMessage: (message) => this.#received(message),
          onEnd: (end) => this.#ended(end),
        });
      } catch (error) {
        // Only the endpoint can be wrong here, and another try would not help.
        this.#conclude({ kind: "fatal", error: "unusable", reason: String(error) });
      }
    });
  }

  /** Puts a message on the control lane; dropped if the session is not open. */
  send(message: ConnectRequest["message"]): boolean {
    if (!this.isOpen) return false;
    this.#outbound.control(create(ConnectRequestSchema, { message }));
    return true;
  }

  /** Puts a piece of output on the output lane. False if the piece was dropped. */
  output(message: ConnectRequest["message"], bytes: number): boolean {
    if (!this.isOpen) return false;
    return this.#outbound.output(create(ConnectRequestSchema, { message }), bytes);
  }

  /** Ends the session from this side. */
  interrupt(reason: string, options: { isWakeUp?: boolean } = {}): void {
    this.#finish({ reason, ...options });
  }

  /** Ends this side; the server has `lingerMs` to end its own. Resolves when the stream is over. */
  leave(reason: string, lingerMs: number): Promise<void> {
    if (this.#settle === undefined) return Promise.resolve();
    this.#outbound.close();
    this.#stream?.finish();
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#finish({ reason }), lingerMs);
      this.#onLeft = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #connected(): void {
    if (!this.#lifecycle.fire("connected")) return;
    const ms = this.#timing.welcomeDeadlineMs;
    this.#lifecycle.after(ms, () => this.#finish({ reason: `no welcome within ${ms} ms` }));
    this.#stream?.write(
      create(ConnectRequestSchema, { message: { case: "hello", value: this.#host.hello() } }),
    );
  }

  #received(message: ConnectResponse): void {
    this.#heardAt = performance.now();
    const { message: body } = message;
    if (body.case === "drain") this.#drained(body.value);
    else if (body.case === "welcome") this.#welcomed(body.value);
    else if (this.#welcomedAt !== undefined) this.#host.onMessage(message);
    else this.#finish({ reason: `the server sent ${body.case ?? "something unknown"} before its welcome` });
  }

  #welcomed(welcome: Welcome): void {
    if (!this.#lifecycle.fire("welcomed")) return;
    this.#welcomedAt = performance.now();
    const heartbeatMs = positive(welcome.timers?.heartbeatInterval, fallbackHeartbeatMs);
    const ttlMs = positive(welcome.timers?.ttl, fallbackTtlMs);
    this.#lifecycle.every(heartbeatMs, () => this.#beat());
    this.#watch(ttlMs, ttlMs);
    this.#outbound.open();
    this.#host.onWelcome(welcome, {
      messageBytesMax: Number(welcome.limits?.messageBytesMax || defaultLimits.messageBytesMax),
      completionOutputBytesMax: Number(
        welcome.limits?.completionOutputBytesMax || defaultLimits.completionOutputBytesMax,
      ),
      outputChunkBytesMax: Number(welcome.limits?.outputChunkBytesMax || defaultLimits.outputChunkBytesMax),
    });
  }

  #beat(): void {
    this.#heartbeats += 1n;
    this.send({
      case: "heartbeat",
      value: {
        $typeName: "pinion.v1.Heartbeat",
        sequence: this.#heartbeats,
        attempts: this.#host.attempts(),
      },
    });
  }

  /** The watchdog: one timer sleeps for the rest of the TTL, so messages do not move a timer. */
  #watch(ttlMs: number, sleepMs: number): void {
    this.#lifecycle.after(sleepMs, () => {
      const silentMs = performance.now() - this.#heardAt;
      if (silentMs >= ttlMs) this.#finish({ reason: `the server was silent for ${Math.round(silentMs)} ms` });
      else this.#watch(ttlMs, Math.ceil(ttlMs - silentMs));
    });
  }

  #drained(drain: Drain): void {
    if (!this.#lifecycle.fire("drained")) return;
    this.#drain = drain;
    this.#drainedAt = performance.now();
    this.#lifecycle.after(this.#timing.drainLingerMs, () => this.#finish({ reason: "drained" }));
    this.#host.onDrain(drain);
    this.#outbound.close();
    this.#stream?.finish();
  }

  #ended(end: StreamEnd): void {
    if (this.#settle === undefined) return;
    this.#end = end;
    const name = status[end.code] ?? String(end.code);
    const text = end.details === "" || end.code === status.OK ? "" : `: ${end.details}`;
    if (this.#welcomedAt === undefined && this.#drain === undefined) {
      const refusal = refusals[end.code];
      if (refusal !== undefined) {
        this.#finish({ reason: `${refusal.advice} (${name}${text})`, refusal: refusal.error });
        return;
      }
    }
    this.#finish({ reason: end.code === status.OK ? "the server ended the stream" : `${name}${text}` });
  }

  #finish(end: { reason: string; refusal?: DeviceErrorReason; isWakeUp?: boolean }): void {
    const isWakeUp = end.isWakeUp ?? false;
    const now = performance.now();
    const heldMs = this.#welcomedAt === undefined ? 0 : now - this.#welcomedAt;
    if (this.#drain !== undefined) {
      const delayMs = this.#drain.reconnectAfter === undefined ? 0 : durationMs(this.#drain.reconnectAfter);
      this.#conclude({
        kind: "drained",
        heldMs,
        drain: this.#drain.reason ?? DrainReason.UNSPECIFIED,
        // The server's delay counts from the drain message, not from the end of the stream.
        reconnectAfterMs: isWakeUp ? 0 : Math.max(0, delayMs - (now - this.#drainedAt)),
        message: this.#drain.message,
        cell: this.#drain.cell,
      });
    } else if (this.#welcomedAt !== undefined) {
      this.#conclude({ kind: "served", heldMs, reason: end.reason, isWakeUp });
    } else {
      this.#conclude({
        kind: "retryable",
        reason: end.reason,
        isWakeUp,
        ...(end.refusal === undefined ? {} : { refusal: end.refusal }),
      });
    }
  }

  #conclude(outcome: SessionOutcome): void {
    const settle = this.#settle;
    if (settle === undefined) return;
    this.#settle = undefined;
    this.#outbound.close();
    this.#stream?.cancel();
    settle(outcome);
    this.#onLeft?.();
  }
}

function positive(duration: Duration | undefined, fallbackMs: number): number {
  const ms = duration === undefined ? 0 : durationMs(duration);
  return ms > 0 ? ms : fallbackMs;
}
