import { setImmediate as nextTurn } from "node:timers/promises";
import { durationMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { Assignment, AttemptRef, Cancel, Completion } from "../../gen/pinion/v1/device_pb.js";
import { messageOf } from "../errors.ts";
import type { AttemptNames } from "../events.ts";
import { type AttemptResult, completionOf, isResult } from "../results/completion.ts";
import { reofferOf, UUID } from "../results/reoffer.ts";
import { nowMs, type SessionLimits } from "../timing.ts";
import { Waiters } from "../waiters.ts";
import {
  type Admission,
  type AssignmentHandler,
  type Attempt,
  AttemptAborted,
  type AttemptsHost,
  type Rejection,
} from "./attempt.ts";
import { AttemptAnswers } from "./attempt-answers.ts";
import { AttemptOutput } from "./attempt-output.ts";

/**
 * Attempt tokens remembered after the end, so a late copy of an assignment starts no second
 * program.
 */
const ENDED_MAX = 4096;

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
  /** Tokens of assignments for which an earlier result of their work is looked up. */
  readonly #lookedUp = new Set<string>();
  readonly #waiters = new Waiters();
  readonly #answers: AttemptAnswers;
  readonly #output: AttemptOutput;
  #isStopping = false;

  constructor(options: { host: AttemptsHost; admit: Admission; handle: AssignmentHandler }) {
    this.#host = options.host;
    this.#answers = new AttemptAnswers(options.host);
    this.#output = new AttemptOutput(options.host);
    this.#admit = options.admit;
    this.#handle = options.handle;
  }

  set maxConcurrency(maxConcurrency: number) {
    this.#host.maxConcurrency = maxConcurrency;
  }

  set limits(limits: SessionLimits) {
    this.#output.chunkBytesMax = limits.outputChunkBytesMax;
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
    if (this.#lookedUp.has(names.attemptToken) || this.#isCopy(names)) {
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
    this.#lookedUp.add(names.attemptToken);
    const forgotten = lookup && (await lookup);
    // The server has taken the attempt back during the look-up.
    if (!this.#lookedUp.delete(names.attemptToken)) return;
    if (forgotten !== undefined) {
      await this.#answerForgotten(names, { ...forgotten, ...reofferOf(assignment) });
    } else if (this.#isStopping) {
      this.#answers.reject(names, "shutting_down", "the daemon is stopping");
    } else if (this.#busy() >= this.#host.maxConcurrency) {
      this.#answers.reject(names, "busy", `all ${this.#host.maxConcurrency} slots are taken`);
    } else {
      await this.#take(names, assignment);
    }
  }

  /** After a database failover lost the run: the finished program does not run a second time. */
  async #answerForgotten(names: AttemptNames, forgotten: Completion): Promise<void> {
    const { workId, attemptToken } = names;
    this.#rememberEnded(attemptToken);
    this.#answers.sendAccept(names);
    await this.#host.deliver({ ...forgotten, workId, attemptToken }, nowMs(), names.watcher);
  }

  /** The server asks for an attempt's end. An unknown attempt has ended already. */
  cancel(cancel: Cancel): void {
    const attempt = this.#attempts.get(cancel.attemptToken);
    if (attempt === undefined) {
      this.#lookedUp.delete(cancel.attemptToken);
      // A completion in the outbox also answers a cancel.
      if (!this.#host.isHeld(cancel.attemptToken)) this.#answers.cancelled(cancel);
      return;
    }
    this.#host.emit({ type: "cancel", ...attempt.names, reason: cancel.reason });
    this.#abort(attempt, new AttemptAborted("cancelled", cancel.reason === "" ? "cancelled" : cancel.reason));
  }

  /** Aborts an attempt whose run has another attempt. */
  supersede(attemptToken: string): void {
    this.#lookedUp.delete(attemptToken);
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
    await this.#waiters.wait(ms);
  }

  /**
   * Ends the running attempts. Resolves when every handler has settled, or after `graceMs`, when
   * the others are reported: with the answer of the agent if there is one, otherwise as failed.
   */
  async stop(graceMs: number): Promise<void> {
    this.refuseNew();
    for (const attempt of this.#attempts.values()) {
      this.#abort(attempt, new AttemptAborted("stopping", "the daemon is stopping"));
    }
    await this.idle(graceMs);
    const reason = "the daemon stopped, and the agent did not end in time";
    await Promise.all(
      [...this.#attempts.values()].map((attempt) =>
        this.#settled(attempt, attempt.answer ?? { outcome: "failed", reason }, 0),
      ),
    );
  }

  #isCopy(names: AttemptNames): boolean {
    const attempt = this.#attempts.get(names.attemptToken);
    if (attempt === undefined) {
      return this.#ended.has(names.attemptToken) || this.#host.resend(names.attemptToken);
    }
    // An accept sent on an earlier stream may be lost; an accept sent on the open stream is on its
    // way.
    if (attempt.phase === "running" && attempt.acceptedOn !== this.#host.stream())
      this.#answers.accept(attempt);
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
      answer: undefined,
      acceptedOn: undefined,
      sequence: 0n,
      activities: 0n,
    };
    this.#attempts.set(names.attemptToken, attempt);
    const rejection = await this.#admission(assignment);
    if (rejection !== undefined || attempt.end === "stopping") {
      this.#forget(attempt, { isEnded: false });
      if (rejection === undefined) this.#answers.reject(names, "shutting_down", "the daemon is stopping");
      else this.#answers.reject(names, rejection.reason, rejection.message);
      return;
    }
    if (attempt.end !== undefined) {
      await this.#settled(attempt, { outcome: "cancelled" }, 0);
      return;
    }
    attempt.phase = "running";
    this.#answers.accept(attempt);
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
        output: (stream, data) => this.#output.output(attempt, stream, data),
        activity: (activity) => this.#output.activity(attempt, activity),
        ask: (question, options) => this.#host.ask(attempt.names, question, options),
        answered: (result) => {
          attempt.answer = result;
        },
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
      this.#answers.cancelled(names);
      this.#host.emit({ type: "cancelled", ...names });
      return;
    }
    const finishedAtMs = nowMs();
    const completion = {
      ...completionOf(names, result, measuredMs),
      ...reofferOf(attempt.assignment),
    };
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

  #rememberEnded(attemptToken: string): void {
    this.#ended.add(attemptToken);
    const [oldest] = this.#ended;
    if (this.#ended.size > ENDED_MAX && oldest !== undefined) this.#ended.delete(oldest);
  }

  #forget(attempt: Attempt, options: { isEnded: boolean }): void {
    const { attemptToken } = attempt.names;
    if (this.#attempts.get(attemptToken) !== attempt) return;
    this.#attempts.delete(attemptToken);
    if (options.isEnded) {
      this.#rememberEnded(attemptToken);
    }
    if (this.#attempts.size === 0) this.#waiters.wake();
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
