import { createHash } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import { create, toBinary } from "@bufbuild/protobuf";
import { durationMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { type Activity, ActivitySchema, type Question } from "../gen/pinion/v1/activity_pb.js";
import {
  type Assignment,
  AssignmentKind,
  type AttemptRef,
  type Cancel,
  type Completion,
  type ConnectRequest,
  RejectReason,
  type Reoffer,
  ReofferSchema,
  type TurnReoffer,
  TurnReofferSchema,
} from "../gen/pinion/v1/device_pb.js";
import { OutputStream } from "../gen/pinion/v1/run_pb.js";
import { type AttemptResult, completionOf, isResult, truncateUtf8 } from "./completion.ts";
import { messageOf } from "./errors.ts";
import type { AttemptNames, DeviceEventBody } from "./events.ts";
import type { GivenAnswer } from "./questions.ts";
import { defaultLimits, nowMs, type SessionLimits } from "./timing.ts";

/** Abort reason of an attempt's signal (`signal.reason`). */
export class AttemptAborted extends Error {
  override name = "AttemptAborted";
  /**
   * `cancelled`: by the server. `superseded`: the run has another attempt. `stopping`: the daemon
   * stops.
   */
  readonly why: "cancelled" | "superseded" | "stopping";

  constructor(why: "cancelled" | "superseded" | "stopping", message: string) {
    super(message);
    this.why = why;
  }
}

/** Functions of one attempt, given to the handler with the assignment. */
export interface AttemptContext {
  /**
   * Aborted when the attempt has to end; the handler then stops its agent and settles. `reason` is
   * an AttemptAborted.
   */
  signal: AbortSignal;
  /** Streams output of any size to watching clients. Never waits; the session may drop pieces. */
  output(stream: "stdout" | "stderr", data: Uint8Array | string): void;
  /**
   * Streams one activity and returns its sequence number, counted here from 1. The caller keeps the
   * protocol's other rules. Never waits; the session may drop the activity. A server without the
   * capability `activity` gets none.
   */
  activity(activity: Activity): bigint;
  /**
   * Asks a person and resolves to the answer, or to the default answer. Waits across reconnects.
   * Never rejects.
   */
  ask(question: Question, options: { timeoutMs: number; signal: AbortSignal }): Promise<GivenAnswer>;
}

/** Refusal of an assignment before the accept. */
export interface Rejection {
  reason: "busy" | "unsupported" | "invalid";
  /** For people. */
  message: string;
}

export type AssignmentHandler = (assignment: Assignment, context: AttemptContext) => Promise<AttemptResult>;
export type Admission = (assignment: Assignment) => Promise<Rejection | undefined> | Rejection | undefined;

/**
 * Attempt tokens remembered after the end, so a late copy of an assignment starts no second
 * program.
 */
const ENDED_MAX = 4096;
/** Bound of a protocol field rule, in bytes. */
const REJECT_MESSAGE_BYTES_MAX = 1000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const rejectReasons: Record<Rejection["reason"] | "shutting_down", RejectReason> = {
  busy: RejectReason.BUSY,
  unsupported: RejectReason.UNSUPPORTED,
  invalid: RejectReason.INVALID,
  shutting_down: RejectReason.SHUTTING_DOWN,
};

/** An attempt in progress on this device. */
interface Attempt {
  readonly names: AttemptNames;
  readonly assignment: Assignment;
  readonly controller: AbortController;
  /** `ending`: the signal is aborted and the handler has not settled yet. */
  phase: "admitting" | "running" | "ending";
  end: AttemptAborted["why"] | undefined;
  /** The stream of the accept. */
  acceptedOn: object | undefined;
  sequence: bigint;
  activities: bigint;
}

/** Functions of the connection used by the attempts. */
export interface AttemptsHost {
  maxConcurrency: number;
  /** The open stream, if any; compared by identity only. */
  stream(): object | undefined;
  send(message: ConnectRequest["message"]): boolean;
  sendOutput(message: ConnectRequest["message"], bytes: number): boolean;
  /** True if the server of the open stream accepts activities. */
  takesActivities(): boolean;
  ask(
    attempt: { workId: string; attemptToken: string },
    question: Question,
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<GivenAnswer>;
  /** Puts a result into the outbox. */
  deliver(completion: Completion, finishedAtMs: number, watcher: string): Promise<void>;
  /** Result of an assignment whose run the server's database has lost. */
  forgottenResult(assignment: Assignment): Promise<Completion | undefined> | undefined;
  /** The outbox has a result of the attempt. */
  isHeld(attemptToken: string): boolean;
  /**
   * The disk's error while results cannot be written; no work is accepted then. Undefined: no
   * error.
   */
  diskProblem(): string | undefined;
  /** Sends the attempt's result again. False if the outbox has none. */
  resend(attemptToken: string): boolean;
  emit(event: DeviceEventBody, atMs?: number): void;
}

/**
 * The attempts in progress on this device. An attempt begins with an assignment and ends with its
 * answer; the phases are:
 *
 *   assign ──▶ admitting ──accept──▶ running ──abort──▶ ending
 *                  │                    │                  │
 *                reject          handler settles    handler settles
 *                  ▼                    ▼                  ▼
 *                gone              completion     completion (stopping), `cancelled`,
 *                                                 or no answer (superseded)
 *
 * Invariants:
 *   A1  an attempt token starts at most one handler, however often the server assigns the token;
 *   A2  without the attempts the server told to stop, at most `maxConcurrency` handlers run; with
 *       them, at most twice as many;
 *   A3  the end of every handler is answered once: by a completion in the outbox, by `cancelled`,
 *       or, after `superseded`, not at all; a completed result is always a completion.
 */
export class Attempts {
  readonly #host: AttemptsHost;
  readonly #admit: Admission;
  readonly #handle: AssignmentHandler;
  readonly #attempts = new Map<string, Attempt>();
  readonly #ended = new Set<string>();
  readonly #waiters = new Set<() => void>();
  #limits: SessionLimits = defaultLimits;
  #isStopping = false;

  constructor(options: { host: AttemptsHost; admit: Admission; handle: AssignmentHandler }) {
    this.#host = options.host;
    this.#admit = options.admit;
    this.#handle = options.handle;
  }

  set maxConcurrency(maxConcurrency: number) {
    this.#host.maxConcurrency = maxConcurrency;
  }

  set limits(limits: SessionLimits) {
    this.#limits = limits;
  }

  /** All attempts in progress except superseded ones; at most two times `maxConcurrency`. */
  listed(): AttemptRef[] {
    return [...this.#attempts.values()]
      .filter((attempt) => attempt.end !== "superseded")
      .map(({ names }) => ({
        $typeName: "pinion.v1.AttemptRef",
        workId: names.workId,
        attemptToken: names.attemptToken,
      }));
  }

  async assign(assignment: Assignment, receivedAtMs: number): Promise<void> {
    const names = namesOf(assignment);
    // An assignment with invalid ids cannot be answered.
    if (!UUID.test(names.workId) || !UUID.test(names.attemptToken)) return;
    if (this.#isCopy(names)) {
      this.#host.emit({ type: "duplicate", ...names });
      return;
    }
    this.#host.emit(
      {
        type: "assignment",
        ...names,
        attempt: assignment.attempt,
        agentKind: assignment.agentKind,
        firedAtMs: fractionalMs(assignment.event?.firedAt),
        timeoutMs: assignment.timeout === undefined ? undefined : durationMs(assignment.timeout),
        traceparent: assignment.traceparent,
      },
      receivedAtMs,
    );
    const lookup = this.#host.forgottenResult(assignment);
    const forgotten = lookup && (await lookup);
    if (forgotten !== undefined) {
      await this.#answerForgotten(names, forgotten);
    } else if (this.#isStopping) {
      this.#reject(names, "shutting_down", "the daemon is stopping");
    } else if (this.#busy() >= this.#host.maxConcurrency) {
      this.#reject(names, "busy", `all ${this.#host.maxConcurrency} slots are taken`);
    } else {
      await this.#take(names, assignment);
    }
  }

  /** After a database failover lost the run: the finished program does not run a second time. */
  async #answerForgotten(names: AttemptNames, forgotten: Completion): Promise<void> {
    const { workId, attemptToken } = names;
    this.#rememberEnded(attemptToken);
    this.#host.send({ case: "accept", value: { $typeName: "pinion.v1.Accept", workId, attemptToken } });
    this.#host.emit({ type: "accepted", ...names });
    await this.#host.deliver({ ...forgotten, attemptToken }, nowMs(), names.watcher);
  }

  /** The server asks for an attempt's end. An unknown attempt has ended already. */
  cancel(cancel: Cancel): void {
    const attempt = this.#attempts.get(cancel.attemptToken);
    if (attempt === undefined) {
      // A completion in the outbox also answers a cancel.
      if (!this.#host.isHeld(cancel.attemptToken)) this.#sendCancelled(cancel);
      return;
    }
    this.#host.emit({ type: "cancel", ...attempt.names, reason: cancel.reason });
    this.#abort(attempt, new AttemptAborted("cancelled", cancel.reason === "" ? "cancelled" : cancel.reason));
  }

  /** Aborts an attempt whose run has another attempt. */
  supersede(attemptToken: string): void {
    const attempt = this.#attempts.get(attemptToken);
    if (attempt === undefined) return;
    this.#abort(attempt, new AttemptAborted("superseded", "the server gave the run to another attempt"));
  }

  /** Refuses new work from now on. */
  refuseNew(): void {
    this.#isStopping = true;
  }

  /** Refuses new work; resolves when no attempt is running, or after `ms`. */
  async idle(ms: number): Promise<void> {
    this.refuseNew();
    if (this.#attempts.size === 0 || ms <= 0) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#waiters.add(done);
    });
  }

  /**
   * Ends the running attempts. Resolves when every handler has settled, or after `graceMs`, when
   * the others are reported as failed.
   */
  async stop(graceMs: number): Promise<void> {
    this.refuseNew();
    for (const attempt of this.#attempts.values()) {
      this.#abort(attempt, new AttemptAborted("stopping", "the daemon is stopping"));
    }
    await this.idle(graceMs);
    const reason = "the daemon stopped, and the agent did not end in time";
    await Promise.all(
      [...this.#attempts.values()].map((attempt) => this.#settled(attempt, { outcome: "failed", reason }, 0)),
    );
  }

  #isCopy(names: AttemptNames): boolean {
    const attempt = this.#attempts.get(names.attemptToken);
    if (attempt === undefined) {
      return this.#ended.has(names.attemptToken) || this.#host.resend(names.attemptToken);
    }
    // An accept sent on an earlier stream may be lost; an accept sent on the open stream is on its
    // way.
    if (attempt.phase === "running" && attempt.acceptedOn !== this.#host.stream()) this.#accept(attempt);
    return true;
  }

  /**
   * The server assigns slots. The server keeps the slot of an attempt until the cancel is answered;
   * an assignment beyond the slots therefore means the server has taken an attempt away. So an
   * attempt told to stop uses no slot while its process ends. At most `maxConcurrency` such
   * attempts are free, so processes that do not end cannot accumulate.
   */
  #busy(): number {
    let wanted = 0;
    for (const { end } of this.#attempts.values())
      if (end !== "superseded" && end !== "cancelled") wanted += 1;
    const windingDown = this.#attempts.size - wanted;
    return wanted + Math.max(0, windingDown - this.#host.maxConcurrency);
  }

  async #take(names: AttemptNames, assignment: Assignment): Promise<void> {
    const attempt: Attempt = {
      names,
      assignment,
      controller: new AbortController(),
      phase: "admitting",
      end: undefined,
      acceptedOn: undefined,
      sequence: 0n,
      activities: 0n,
    };
    this.#attempts.set(names.attemptToken, attempt);
    const rejection = await this.#admission(assignment);
    if (rejection !== undefined || attempt.end === "stopping") {
      this.#forget(attempt, { isEnded: false });
      if (rejection === undefined) this.#reject(names, "shutting_down", "the daemon is stopping");
      else this.#reject(names, rejection.reason, rejection.message);
      return;
    }
    if (attempt.end !== undefined) {
      await this.#settled(attempt, { outcome: "cancelled" }, 0);
      return;
    }
    attempt.phase = "running";
    this.#accept(attempt);
    // Starting a program blocks for milliseconds, so the accept is sent first.
    await nextTurn();
    if (attempt.end === undefined) await this.#run(attempt);
    else await this.#settled(attempt, { outcome: "failed", reason: "daemon stopped" }, 0);
  }

  async #admission(assignment: Assignment): Promise<Rejection | undefined> {
    const problem = this.#host.diskProblem();
    if (problem !== undefined) {
      return { reason: "busy", message: `the device's disk does not take results: ${problem}` };
    }
    try {
      return await this.#admit(assignment);
    } catch (error) {
      // Most likely a disk error, perhaps temporary: `busy` keeps the run from failing.
      return { reason: "busy", message: messageOf(error) };
    }
  }

  async #run(attempt: Attempt): Promise<void> {
    const startedAt = performance.now();
    let result: AttemptResult;
    try {
      result = await this.#handle(attempt.assignment, {
        signal: attempt.controller.signal,
        output: (stream, data) => this.#output(attempt, stream, data),
        activity: (activity) => this.#activity(attempt, activity),
        ask: (question, options) => this.#host.ask(attempt.names, question, options),
      });
      if (!isResult(result)) throw new TypeError("the handler did not say how the attempt ended");
    } catch (error) {
      result = { outcome: "failed", reason: messageOf(error) };
    }
    await this.#settled(attempt, result, performance.now() - startedAt);
  }

  async #settled(attempt: Attempt, result: AttemptResult, measuredMs: number): Promise<void> {
    const { names } = attempt;
    // `stop` has reported the attempt already.
    if (this.#attempts.get(names.attemptToken) !== attempt) return;
    // Finished work is never thrown away: the server keeps the result of an attempt that was taken
    // away as a late result.
    const isDone = result.outcome === "completed";
    if (attempt.end === "superseded" && !isDone) {
      this.#forget(attempt, { isEnded: true });
      this.#host.emit({ type: "aborted", ...names });
      return;
    }
    if (attempt.end === "cancelled" && !isDone) {
      this.#forget(attempt, { isEnded: true });
      this.#sendCancelled(names);
      this.#host.emit({ type: "cancelled", ...names });
      return;
    }
    const finishedAtMs = nowMs();
    const completion = completionOf(names, result, measuredMs);
    const reoffer = reofferOf(attempt.assignment);
    if (reoffer) completion.reoffer = reoffer;
    const turnReoffer = turnReofferOf(attempt.assignment);
    if (turnReoffer) completion.turnReoffer = turnReoffer;
    this.#host.emit(
      { type: "finished", ...names, result, durationMs: result.durationMs ?? measuredMs },
      finishedAtMs,
    );
    // The attempt stays listed until the result is durable, so the attempt is always either in
    // progress or in the outbox.
    await this.#host.deliver(completion, finishedAtMs, names.watcher);
    this.#forget(attempt, { isEnded: true });
  }

  #abort(attempt: Attempt, reason: AttemptAborted): void {
    // The first reason stands; only `superseded` replaces an earlier reason, because no answer is
    // due then.
    if (attempt.end === undefined || reason.why === "superseded") attempt.end = reason.why;
    if (attempt.phase === "running") attempt.phase = "ending";
    attempt.controller.abort(reason);
  }

  #accept(attempt: Attempt): void {
    const { workId, attemptToken } = attempt.names;
    attempt.acceptedOn = this.#host.stream();
    this.#host.send({ case: "accept", value: { $typeName: "pinion.v1.Accept", workId, attemptToken } });
    this.#host.emit({ type: "accepted", ...attempt.names });
  }

  #rememberEnded(attemptToken: string): void {
    this.#ended.add(attemptToken);
    const [oldest] = this.#ended;
    if (this.#ended.size > ENDED_MAX && oldest !== undefined) this.#ended.delete(oldest);
  }

  #reject(names: AttemptNames, reason: keyof typeof rejectReasons, message: string): void {
    this.#host.send({
      case: "reject",
      value: {
        $typeName: "pinion.v1.Reject",
        workId: names.workId,
        attemptToken: names.attemptToken,
        reason: rejectReasons[reason],
        message: truncateUtf8(message.toWellFormed(), REJECT_MESSAGE_BYTES_MAX).text,
      },
    });
    this.#host.emit({ type: "rejected", ...names, reason, message });
  }

  #sendCancelled(attempt: { workId: string; attemptToken: string }): void {
    // Without a stream, the server asks again after the reconnect.
    this.#host.send({
      case: "cancelled",
      value: { $typeName: "pinion.v1.Cancelled", workId: attempt.workId, attemptToken: attempt.attemptToken },
    });
  }

  #output(attempt: Attempt, stream: "stdout" | "stderr", data: Uint8Array | string): void {
    const bytes = typeof data === "string" ? Buffer.from(data, "utf8") : data;
    const { workId, attemptToken } = attempt.names;
    for (let start = 0; start < bytes.length; start += this.#limits.outputChunkBytesMax) {
      const piece = bytes.subarray(start, start + this.#limits.outputChunkBytesMax);
      attempt.sequence += 1n;
      const isSent =
        attempt.end !== "superseded" &&
        this.#host.sendOutput(
          {
            case: "output",
            value: {
              $typeName: "pinion.v1.Output",
              workId,
              attemptToken,
              sequence: attempt.sequence,
              stream: stream === "stdout" ? OutputStream.STDOUT : OutputStream.STDERR,
              data: piece,
            },
          },
          piece.length,
        );
      this.#host.emit({
        type: "output",
        ...attempt.names,
        stream,
        data: piece,
        sequence: attempt.sequence,
        isSent,
      });
    }
  }

  #activity(attempt: Attempt, activity: Activity): bigint {
    attempt.activities += 1n;
    const { workId, attemptToken } = attempt.names;
    const numbered = { ...activity, sequence: attempt.activities };
    const isSent =
      attempt.end !== "superseded" &&
      this.#host.takesActivities() &&
      this.#host.sendOutput(
        {
          case: "activity",
          value: { $typeName: "pinion.v1.ActivityReport", workId, attemptToken, activities: [numbered] },
        },
        toBinary(ActivitySchema, numbered).length,
      );
    this.#host.emit({ type: "activity", ...attempt.names, activity: numbered, isSent });
    return attempt.activities;
  }

  #forget(attempt: Attempt, options: { isEnded: boolean }): void {
    const { attemptToken } = attempt.names;
    if (this.#attempts.get(attemptToken) !== attempt) return;
    this.#attempts.delete(attemptToken);
    if (options.isEnded) {
      this.#rememberEnded(attemptToken);
    }
    if (this.#attempts.size === 0) for (const done of [...this.#waiters]) done();
  }
}

/**
 * With fractions: the library's conversion rounds up, so a push could seem to take a negative time.
 */
function fractionalMs(timestamp: Timestamp | undefined): number | undefined {
  return timestamp === undefined ? undefined : Number(timestamp.seconds) * 1000 + timestamp.nanos / 1e6;
}

function namesOf(assignment: Assignment): AttemptNames {
  return {
    workId: assignment.workId,
    attemptToken: assignment.attemptToken,
    watcher: assignment.watcher?.slug ?? "",
  };
}

/** The beginning of a message in bytes, for people who read a turn that the server lost. */
const REOFFERED_INPUT_BYTES_MAX = 65_536;

/** Data about the turn for offering the reply again; undefined for a run. */
function turnReofferOf({ kind, turn, agent, attempt }: Assignment): TurnReoffer | undefined {
  if (kind !== AssignmentKind.TURN || !turn || !agent || attempt < 1) return undefined;
  const { conversationId, messageId, usesSnapshot } = turn;
  return create(TurnReofferSchema, {
    ...{ agentId: agent.id, conversationId, messageId, usesSnapshot, attempt },
    input: truncateUtf8(turn.input, REOFFERED_INPUT_BYTES_MAX).text,
    inputSha256: createHash("sha256").update(turn.input).digest(),
  });
}

/** Data about the run for offering the result again; undefined for a turn. */
function reofferOf({ kind, watcher, event, attempt }: Assignment): Reoffer | undefined {
  if (kind !== AssignmentKind.WATCHER_RUN || !watcher || !event?.windowStart || !event.windowEnd)
    return undefined;
  if (!UUID.test(watcher.id) || attempt < 1) return undefined;
  return create(ReofferSchema, {
    ...{ watcherId: watcher.id, attempt, source: event.source },
    ...(event.scheduledFor ? { scheduledFor: event.scheduledFor } : {}),
    ...{ windowStart: event.windowStart, windowEnd: event.windowEnd },
  });
}
