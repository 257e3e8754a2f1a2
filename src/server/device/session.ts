import {
  type Accept,
  type ActivityReport,
  type AttemptRef,
  type Cancelled,
  type Completion,
  type ConnectRequest,
  ConnectRequestSchema,
  DrainReason,
  type Heartbeat,
  HeldAttemptState,
  type Hello,
  type LogExcerpt,
  type Output,
  type QuestionAsked,
  type QuestionClosed,
  QuestionCloseReason,
  type Reject,
  RejectReason,
} from "#gen/pinion/v1/device_pb.js";
import { sleep } from "../../abort.ts";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Seat } from "../../scheduler/dispatcher.ts";
import { withdrawnDelayMs } from "../../scheduler/reaper.ts";
import { isPassing } from "../../store/pg/database.ts";
import { storableText } from "../../store/pg/storable.ts";
import type { ClaimedRun } from "../../store/work/attempts.ts";
import type { AttemptName, Settlement } from "../../store/work/settlements.ts";
import type { ClaimedTurn } from "../../store/work/turn-attempts.ts";
import type { Principal } from "../access/guard.ts";
import { checkMessage } from "../access/interceptors/validate.ts";
import { activityBytes, activityStream } from "./activity.ts";
import { Ahead, type Ending } from "./ahead.ts";
import type { Link, Prepared } from "./link.ts";
import {
  assignmentOf,
  cancelledReportOf,
  cancelOf,
  completionAckOf,
  drainOf,
  forgottenOf,
  forgottenTurnOf,
  heartbeatAckOf,
  invalidCompletionAckOf,
  invalidEndOf,
  normalizeName,
  normalizeNames,
  reportOf,
  response,
  welcomeOf,
} from "./messages.ts";
import { beatsMissedMax, Outstanding, type OutstandingAttempt } from "./outstanding.ts";
import { type AnswerMessage, answerMessage, askedOf, refusedAnswer } from "./questions.ts";
import type { Opening } from "./reconcile.ts";
import type { SessionServices } from "./session-services.ts";
import { reactions, type SessionState } from "./session-table.ts";
import { turnAssignmentOf } from "./turn-messages.ts";
import type { AttemptKind } from "./work.ts";

/** Maximum messages of a device being handled at once; its slots never need more. */
const underWayMax = 256;
/** Milliseconds for a drained device to leave. */
const drainGraceMs = 10_000;
/** Milliseconds in which a device that has closed its side is still answered. */
const leavingMs = 2_000;
/**
 * Milliseconds over which the devices of a stopping replica reconnect; a device moved alone waits
 * `moveSpreadMs` at most.
 */
const shutdownSpreadMs = 5_000;
const moveSpreadMs = 200;
/** Milliseconds between tries while the database is away. */
const retryMs = 1_000;

const noAttempts: readonly never[] = [];

/** The settlement of an attempt claimed for a session that stopped serving meanwhile. */
const whileLeaving = {
  action: "withdraw",
  status: "timeout",
  reason: "the device was leaving when it was claimed",
} as const;

/**
 * A device's live stream on the replica, with a memory of the attempts on the device. The database
 * decides; the session only sends and receives, and may be lost at any time. session-table.ts has
 * the states and the reaction to each message in each state; attempt-table.ts has the states of an
 * attempt.
 *
 *   hello ─▶ reconcile with the database ─▶ welcome ─▶ serving
 *   serving:  claimed run or turn ─▶ held until due and a slot is free (ahead.ts)
 *               ─▶ assignment ─▶ accept ─▶ completion ─▶ stored ─▶ acknowledgement
 *   end:      runs stay until the TTL; turns fail at once unless the server moved the device
 */
/** Requests for the log that wait for the device, at most, and for how long, in ms. */
const logsWantedMax = 8;
const logWantedMs = 20_000;

export class Session implements Seat {
  readonly orgId: string;
  readonly tokenId: string;
  /** Opened with a service's token: the hello names the worker. */
  readonly isWorker: boolean;
  mayHaveRuns = true;
  mayHaveTurns = true;
  readonly #services: SessionServices<Session>;
  readonly #link: Link;
  #log: Logger;
  readonly #out = new Outstanding();
  readonly #ahead: Ahead;
  readonly #reporting = new Set<string>();
  readonly #over = new AbortController();
  #state: SessionState = "greeting";
  #deviceId: string;
  #kinds: readonly string[] | null = null;
  #isOpening = false;
  #hasLeft = false;
  /**
   * The server asked the device to connect elsewhere: its turns continue there, unless the deadline
   * passes first.
   */
  #isMoved = false;
  /** The asking replica of each wanted excerpt of the log. */
  readonly #logsWanted = new Map<string, string>();
  #epoch = 0;
  #sessionId = "";
  /** The times of the hello and of the welcome, by the monotonic clock in milliseconds. */
  #greetedAt = Number.POSITIVE_INFINITY;
  #openedAt = Number.POSITIVE_INFINITY;
  #maxConcurrency = 0;
  #underWay = 0;
  /**
   * The time since when a slot has been free without a break; runs due before waited for the
   * device.
   */
  #freeSince = 0;
  #heardAt = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #ageTimer: NodeJS.Timeout | undefined;

  constructor(options: { principal: Principal; link: Link; services: SessionServices<Session> }) {
    const { principal, services } = options;
    this.orgId = principal.orgId;
    this.isWorker = principal.deviceId === null;
    this.#deviceId = principal.deviceId ?? "";
    this.tokenId = principal.tokenId;
    this.#services = services;
    this.#link = options.link;
    this.#ahead = new Ahead(
      {
        freeSlots: () => this.freeSlots(),
        prepare: (run) => this.#assignmentOf(run),
        push: (run, claimMs, assignment) => this.#push(run, claimMs, assignment),
        giveBack: (run, how) => this.#giveBack({ ...run, kind: "run", workId: run.runId }, how),
      },
      services,
    );
    this.#log = services.log.child({ orgId: this.orgId, deviceId: this.deviceId });
    const { helloDeadlineMs } = services.timers;
    this.#timer = setTimeout(() => {
      this.close(
        "no_hello",
        new Refusal("deadline_exceeded", `no hello within ${helloDeadlineMs} ms; send it first`),
      );
    }, helloDeadlineMs);
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Empty for a worker before its hello has been reconciled. */
  get deviceId(): string {
    return this.#deviceId;
  }

  get kinds(): readonly string[] | null {
    return this.#kinds;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /**
   * Identifies the session together with its epoch: a failover to a standby that lags may assign an
   * epoch twice.
   */
  get sessionId(): string {
    return this.#sessionId;
  }

  /**
   * Whether the session is newer than another session of the device. A session that was open when
   * the hello of `this` came is older, whatever the epochs: a failover may have reset the epochs.
   * Of two concurrent hellos the epochs decide.
   */
  isNewerThan(other: Session): boolean {
    return other.#openedAt <= this.#greetedAt || other.#epoch < this.#epoch;
  }

  /** Notes that work of a kind may wait for the session. */
  mayHave(kind: AttemptKind): void {
    if (kind === "turn") this.mayHaveTurns = true;
    else this.mayHaveRuns = true;
  }

  /** Attempts out at the device. */
  get activeCount(): number {
    return this.#out.size;
  }

  /** The attempts on the device by the session's memory, and the attempts held ahead for it. */
  attemptsOut(): (AttemptName & { kind: AttemptKind })[] {
    const { orgId, deviceId } = this;
    const held = this.#ahead.list().map(({ run }) => ({ ...run, kind: "run" as const, workId: run.runId }));
    return [...this.#out.list(), ...held].map(({ kind, workId, attemptToken }) => {
      return { orgId, deviceId, kind, workId, attemptToken };
    });
  }

  /**
   * Handles a message. The next message may follow at once, or when the returned promise resolves:
   * only the hello needs time. The other messages return no promise, to save allocations.
   */
  receive(request: ConnectRequest): Promise<void> | undefined {
    this.#heardAt = performance.now();
    const input = request.message.case;
    if (!input) {
      const refusal = new Refusal("invalid_argument", "message: exactly one is required", {
        field: "message",
      });
      this.close("bad_message", refusal);
      return;
    }
    const reaction = reactions[this.#state][input];
    if (reaction === "ignore") return;
    if (reaction === "refuse_before_hello" || reaction === "refuse_second_hello") {
      const why =
        reaction === "refuse_before_hello"
          ? `${input} before the hello was answered; send hello first, and wait for welcome`
          : "a second hello; a stream has one, so open another stream";
      this.close("out_of_order", new Refusal("failed_precondition", why));
      return;
    }
    normalizeNames(request);
    const violation = checkMessage(ConnectRequestSchema, request);
    if (violation) {
      // A completion that can never be stored is answered, so that the device does not send it for
      // ever.
      if (request.message.case === "complete") {
        this.#track(this.#turnDown(request.message.value, violation.message));
      } else {
        this.close(
          "bad_message",
          new Refusal("invalid_argument", violation.message, { field: violation.field }),
        );
      }
      return;
    }
    switch (request.message.case) {
      case "hello":
        return this.#open(request.message.value);
      case "heartbeat":
        this.#beat(request.message.value);
        break;
      case "accept":
        this.#accept(request.message.value);
        break;
      case "reject":
        this.#reject(request.message.value);
        break;
      case "output":
        this.#output(request.message.value);
        break;
      case "complete":
        this.#track(this.#complete(request.message.value));
        break;
      case "cancelled":
        this.#track(this.#cancelled(request.message.value));
        break;
      case "activity":
        this.#activity(request.message.value);
        break;
      case "question":
        this.#track(this.#ask(request.message.value));
        break;
      case "questionClosed":
        this.#track(this.#closeQuestion(request.message.value));
        break;
      case "logExcerpt":
        this.#logArrived(request.message.value);
        break;
    }
    return undefined;
  }

  /** Asks the device for the end of its log, for a person on the replica `replyTo`. */
  askForLog({
    requestId,
    linesMax,
    replyTo,
  }: {
    requestId: string;
    linesMax: number;
    replyTo: string;
  }): void {
    if (this.#state !== "serving" || this.#logsWanted.size >= logsWantedMax) return;
    this.#logsWanted.set(requestId, replyTo);
    setTimeout(() => this.#logsWanted.delete(requestId), logWantedMs).unref();
    this.#link.send(response({ case: "logRequest", value: { requestId, linesMax } }));
  }

  /** An excerpt that was not asked for is dropped. */
  #logArrived({ requestId, text, isTruncated }: LogExcerpt): void {
    const replyTo = this.#logsWanted.get(requestId);
    if (replyTo === undefined) return;
    this.#logsWanted.delete(requestId);
    this.#services.logArrived({
      orgId: this.orgId,
      requestId,
      replyTo,
      text: storableText(text),
      isTruncated,
    });
  }

  /**
   * Handles a message that is no valid protobuf. A completion whose attempt can be read is answered
   * as invalid, like a completion that breaks a rule; any other message ends the stream.
   */
  receiveUnreadable(problem: string, completion?: Completion): void {
    this.#heardAt = performance.now();
    if (this.#state === "closed") return;
    const why = `the message is no valid protobuf: ${problem}`;
    if (!completion || reactions[this.#state].complete !== "take") {
      this.close("bad_message", new Refusal("invalid_argument", why));
      return;
    }
    normalizeName(completion);
    this.#track(this.#turnDown(completion, `complete: ${why}`));
  }

  async #open(hello: Hello): Promise<void> {
    this.#state = "opening";
    this.#greetedAt = performance.now();
    clearTimeout(this.#timer);
    this.#isOpening = true;
    let opening: Opening;
    try {
      opening = await this.#services.open(this, hello);
    } catch (error) {
      this.#isOpening = false;
      if (this.#isClosed()) return this.#tellClosed("gone_while_opening");
      const refusal =
        error instanceof Refusal
          ? error
          : isPassing(error)
            ? new Refusal("unavailable", "the database is away; connect again", { retryAfterMs: 5_000 })
            : undefined;
      if (!refusal) this.#log.error({ err: error }, "a session could not be opened");
      this.close(
        "not_opened",
        refusal ?? new Refusal("unavailable", "the session could not be opened; connect again"),
      );
      return;
    }
    this.#isOpening = false;
    this.#epoch = opening.epoch;
    this.#sessionId = opening.sessionId;
    this.#openedAt = performance.now();
    if (this.isWorker) {
      this.#deviceId = opening.deviceId;
      this.#kinds = hello.agentKinds;
      this.#log = this.#services.log.child({ orgId: this.orgId, deviceId: this.deviceId });
    }
    if (this.#isClosed()) {
      // The replaced stream and the released attempts are announced all the same.
      this.#services.opened(this, opening);
      return this.#tellClosed("gone_while_opening");
    }
    this.#maxConcurrency = hello.maxConcurrency;
    const ended = new Set(
      hello.held.filter(({ state }) => state === HeldAttemptState.FINISHED).map((held) => held.attemptToken),
    );
    for (const held of opening.continuing) {
      // An ended attempt is not listed by heartbeats; its completion is on the way.
      this.#out.add(held, ended.has(held.attemptToken) ? "reporting" : "running");
    }
    this.#state = "serving";
    this.#freeSince = performance.now();
    const { replicaId, timers } = this.#services;
    this.#link.send(
      welcomeOf({
        ...opening,
        held: hello.held,
        replicaId,
        timers,
        incarnation: this.#services.incarnation(),
        daemonVersion: this.#services.daemonVersion(),
      }),
    );
    this.#watch();
    this.#ageTimer = setTimeout(
      () => this.drain(DrainReason.MAX_AGE, "the connection has reached its maximum age"),
      this.#services.timers.ageMsMax * (0.9 + 0.2 * Math.random()),
    );
    for (const held of opening.continuing) {
      if (held.isCancelRequested) this.cancel({ ...held, reason: held.cancelReason ?? "cancelled" });
    }
    this.#services.opened(this, opening);
  }

  /** The watchdog: a timer that ends the session after a silence of `ttlMs` milliseconds. */
  #watch(): void {
    const { ttlMs } = this.#services.timers;
    const leftMs = ttlMs - (performance.now() - this.#heardAt);
    if (leftMs <= 0) {
      this.close(
        "silent",
        new Refusal("deadline_exceeded", `nothing was received for ${ttlMs} ms; connect again`),
      );
      return;
    }
    this.#timer = setTimeout(() => this.#watch(), leftMs + 1);
  }

  /** Whether the session's state takes heartbeats. */
  get takesBeats(): boolean {
    return reactions[this.#state].heartbeat === "take";
  }

  /** Handles a heartbeat with the attempts of an earlier one, checked then; the caller answers it. */
  beatAgain(attempts: readonly AttemptRef[]): void {
    this.#heardAt = performance.now();
    this.#noteBeat(attempts);
  }

  #beat(heartbeat: Heartbeat): void {
    this.#link.send(heartbeatAckOf(heartbeat));
    this.#noteBeat(heartbeat.attempts);
  }

  #noteBeat(attempts: readonly AttemptRef[]): void {
    if (attempts.length === 0 && this.#out.size === 0) {
      this.#services.beat(this, noAttempts);
      return;
    }
    const { beating, lost, strangers } = this.#out.beat(attempts);
    const { orgId, deviceId } = this;
    this.#services.beat(
      this,
      beating.map(({ kind, workId, attemptToken }) => ({ orgId, deviceId, kind, workId, attemptToken })),
    );
    const reason = `lost by the device: ${beatsMissedMax} successive heartbeats did not list it`;
    for (const attempt of lost) {
      this.#services.telemetry.lost("not_listed");
      this.#settle(attempt, { action: "finish_or_retry", status: "timeout", reason });
    }
    for (const stranger of strangers) this.#disown(stranger);
  }

  #accept(accept: Accept): void {
    const attempt = this.#out.find(accept);
    if (!attempt) this.#disown(accept);
    if (!attempt || !this.#out.on(attempt, "accept")) return;
    this.#track(this.#acceptDurably(attempt));
  }

  async #acceptDurably(attempt: OutstandingAttempt): Promise<void> {
    const result = await this.#whileServed(() =>
      this.#services.works[attempt.kind].accept({
        orgId: this.orgId,
        deviceId: this.deviceId,
        workId: attempt.workId,
        attemptToken: attempt.attemptToken,
        // Evaluated at the write, which may be later.
        get pushedAgoMs() {
          return performance.now() - attempt.pushedAt;
        },
        get acceptedAgoMs() {
          return performance.now() - attempt.acceptedAt;
        },
        isMoot: () => attempt.state === "reporting",
      }),
    );
    if (result === "running") {
      this.#out.on(attempt, "stored");
      this.#services.telemetry.accepted(this.#named(attempt), performance.now() - attempt.pushedAt);
      this.#services.runMoved(this, "run.started", attempt);
    } else if (result === "moot") {
      // The attempt ended before its accept was written; viewers are told of the start all the
      // same.
      this.#services.telemetry.accepted(this.#named(attempt), attempt.acceptedAt - attempt.pushedAt);
      this.#services.runMoved(this, "run.started", attempt);
    } else if (result === "gone" && attempt.state === "accepting") {
      // The attempt was settled meanwhile; unless the device has reported its end, the device is
      // told to stop.
      this.settled(attempt.attemptToken);
      this.#disown(attempt);
    }
  }

  #reject(reject: Reject): void {
    const attempt = this.#out.find(reject);
    if (!attempt || attempt.state === "settling" || attempt.state === "reporting") return;
    const isTemporary = reject.reason === RejectReason.BUSY || reject.reason === RejectReason.SHUTTING_DOWN;
    const why = reject.message || RejectReason[reject.reason].toLowerCase();
    // An accepted attempt may have begun, so the attempt counts.
    const how: Pick<Settlement, "action" | "status" | "reason" | "delayMs"> =
      attempt.state !== "assigned"
        ? { action: "finish_or_retry", status: "failed", reason: `given up by the device: ${why}` }
        : isTemporary
          ? {
              action: "withdraw",
              status: "timeout",
              reason: `turned down by the device for now: ${why}`,
              delayMs: withdrawnDelayMs,
            }
          : { action: "finish_or_retry", status: "failed", reason: `turned down by the device: ${why}` };
    this.#settle(attempt, how, "report");
  }

  #output(output: Output): void {
    const attempt = this.#out.find(output);
    if (!attempt) return;
    this.#services.output({
      orgId: this.orgId,
      workId: attempt.workId,
      attempt: attempt.attempt,
      sequence: output.sequence,
      stream: output.stream,
      data: output.data,
    });
  }

  /** An agent's activities are relayed like output, and dropped under the same conditions. */
  #activity(report: ActivityReport): void {
    const attempt = this.#out.find(report);
    if (!attempt) return;
    for (const activity of report.activities) {
      this.#services.output({
        orgId: this.orgId,
        workId: attempt.workId,
        attempt: attempt.attempt,
        sequence: activity.sequence,
        stream: activityStream,
        data: activityBytes(activity),
      });
    }
  }

  /** An attempt that may not ask receives the default answer, so that its agent does not wait. */
  async #ask(message: QuestionAsked): Promise<void> {
    const asked = askedOf(this, message);
    const row = await this.#whileServed(() => this.#services.ask(asked));
    if (!row) return this.answer(refusedAnswer(asked));
    if (row.state !== "open") this.answer(answerMessage(row));
  }

  async #closeQuestion(message: QuestionClosed): Promise<void> {
    const { workId, attemptToken, questionId: id } = message;
    const { orgId, deviceId } = this;
    const state = message.reason === QuestionCloseReason.EXPIRED ? "expired" : "withdrawn";
    await this.#whileServed(() =>
      this.#services.closeQuestion({ orgId, deviceId, workId, attemptToken, id }, state),
    );
  }

  /** Sends the device the answer to a question of its agent. */
  answer({ workId, attemptToken, questionId, optionId, text, isDefault }: AnswerMessage): void {
    if (this.#state !== "serving" && this.#state !== "draining") return;
    const value = { workId, attemptToken, questionId, optionId, text, isDefault };
    this.#link.send(response({ case: "answer", value }));
  }

  async #complete(completion: Completion): Promise<void> {
    // A repeated completion of an attempt that is being stored shares the answer of the first.
    if (this.#reporting.has(completion.attemptToken)) return;
    this.#reporting.add(completion.attemptToken);
    try {
      await this.#store(completion);
    } finally {
      this.#reporting.delete(completion.attemptToken);
    }
  }

  async #store(completion: Completion): Promise<void> {
    const startedAt = performance.now();
    const attempt = this.#out.find(completion);
    // The report then carries the accept to the database, too.
    const accepting = attempt?.state === "accepting" ? attempt : undefined;
    if (attempt) {
      this.#out.on(attempt, "report");
      this.#ahead.took(startedAt - attempt.pushedAt);
    }
    const forgotten = forgottenOf(this, completion);
    if (forgotten) await this.#whileServed(() => this.#services.restore(forgotten));
    const forgottenTurn = forgottenTurnOf(this, completion);
    if (forgottenTurn) await this.#whileServed(() => this.#services.restoreTurn(forgottenTurn));
    const verdict = await this.#whileServed(() =>
      this.#services.report(reportOf(this, completion, accepting), attempt?.kind).catch((error: unknown) => {
        if (error instanceof Refusal && error.reason === "invalid_argument") return error;
        throw error;
      }),
    );
    if (!verdict) return;
    if (verdict instanceof Refusal) return this.#turnDown(completion, verdict.message);
    this.settled(completion.attemptToken);
    this.#link.send(completionAckOf(completion, verdict, this.#services.incarnation()));
    const tookMs = performance.now() - startedAt;
    this.#services.telemetry.acknowledged(this.#named(completion), verdict.verdict, tookMs);
  }

  /**
   * A completion that can never be stored ends its run as failed, with the reason; a second attempt
   * would end the same way. The device sets the completion aside; a corrected completion counts as
   * late.
   */
  async #turnDown(completion: Completion, why: string): Promise<void> {
    const attempt = this.#out.find(completion);
    if (attempt && attempt.state !== "settling") {
      this.#out.on(attempt, "report");
      const { orgId } = this;
      const { kind, workId, attemptToken } = attempt;
      const session = { epoch: this.#epoch, sessionId: this.#sessionId };
      const settlement = {
        orgId,
        workId,
        attemptToken,
        deviceId: null,
        session,
        ...invalidEndOf(completion, why),
      };
      const wasOurs = await this.#whileServed(() => this.#services.works[kind].settle(settlement));
      // The device sends an unanswered completion again.
      if (wasOurs === undefined) return;
      this.settled(attemptToken);
    }
    this.#link.send(invalidCompletionAckOf(completion, why));
  }

  async #cancelled(cancelled: Cancelled): Promise<void> {
    const attempt = this.#out.find(cancelled);
    if (attempt) this.#out.on(attempt, "report");
    await this.#whileServed(() => this.#services.report(cancelledReportOf(this, cancelled), attempt?.kind));
    this.settled(cancelled.attemptToken);
  }

  freeSlots(): number {
    return this.#state === "serving" ? Math.max(0, this.#maxConcurrency - this.#out.size) : 0;
  }

  roomAhead(): number {
    if (this.#state !== "serving" || this.isWorker) return 0;
    const room = this.#ahead.roomFor(this.#maxConcurrency);
    return Math.max(0, room - this.#out.size - this.#ahead.size);
  }

  deliver(run: ClaimedRun, claimMs: number): void {
    const mayWait = this.#state === "serving" && !this.isWorker;
    const isFirst = this.#ahead.size === 0 && this.#ahead.isDue(run.dueAt.getTime());
    if (!mayWait || (isFirst && this.freeSlots() > 0)) this.#push(run, claimMs);
    else this.#ahead.add(run, claimMs);
  }

  #assignmentOf(run: ClaimedRun): Prepared {
    return this.#link.prepare(assignmentOf(run, this.#services.telemetry.traceparent(run.runId)));
  }

  #push(run: ClaimedRun, claimMs: number, assignment?: Prepared): void {
    const { clock, telemetry } = this.#services;
    const isPushed = this.#deliver(
      { ...run, kind: "run", workId: run.runId },
      () => assignment ?? this.#assignmentOf(run),
    );
    if (!isPushed) return;
    // For a retried run the claim knows the start of the wait.
    const dueForMs = run.attempt > 1 ? run.dueForMs : Math.max(0, clock.now() - run.dueAt.getTime());
    const waitedMs = Math.min(dueForMs, performance.now() - this.#freeSince);
    telemetry.pushed(run, { claimMs, waitedMs });
  }

  deliverTurn(turn: ClaimedTurn): void {
    this.#deliver({ ...turn, kind: "turn", workId: turn.turnId }, () =>
      this.#link.prepare(turnAssignmentOf(turn)),
    );
  }

  /** Returns whether the attempt was pushed. */
  #deliver(
    name: { kind: AttemptKind; workId: string; attemptToken: string; attempt: number },
    assignment: () => Prepared,
  ): boolean {
    if (this.#isClosed()) {
      this.#giveBack(name);
      return false;
    }
    const attempt = this.#out.add(name, "assigned");
    if (this.#state !== "serving") {
      this.#settle(attempt, whileLeaving);
      return false;
    }
    let made: Prepared;
    try {
      made = assignment();
    } catch (error) {
      // R8: a run whose assignment cannot be made fails alone.
      this.#log.error({ err: error, workId: name.workId }, "an assignment could not be made");
      this.#settle(attempt, {
        action: "finish",
        status: "failed",
        reason: "its assignment could not be made; see the server's log",
      });
      return false;
    }
    const deadlineMs = this.#services.timers.acceptDeadlineMs;
    this.#out.push(attempt, made, {
      deadlineMs,
      send: (message) => this.#link.send(message),
      onUnanswered: () => {
        this.#services.telemetry.lost("not_answered");
        this.#settle(attempt, {
          action: "withdraw",
          status: "timeout",
          reason: `pushed twice, but not accepted within ${2 * deadlineMs} ms`,
          delayMs: withdrawnDelayMs,
        });
      },
    });
    this.#services.runMoved(this, "run.claimed", attempt);
    return true;
  }

  /** The session ended during the claim: the attempt was never pushed and is released. */
  #giveBack(
    { kind, workId, attemptToken }: { kind: AttemptKind; workId: string; attemptToken: string },
    how: Ending = whileLeaving,
  ): void {
    const { orgId } = this;
    const session = { epoch: this.#epoch, sessionId: this.#sessionId };
    this.#services.works[kind]
      .settle({ orgId, workId, attemptToken, deviceId: null, session, ...how })
      .catch((error: unknown) => {
        // The next hello or the reaper takes the attempt back.
        this.#log.warn({ err: error, workId }, "an attempt that was never pushed could not be given back");
      });
  }

  /**
   * Gives back an attempt that was claimed for the session if the answer to the claim never came.
   */
  withdrawUnknown(name: { kind: AttemptKind; workId: string; attemptToken: string }): void {
    if (this.#out.find(name) || this.#ahead.has(name.attemptToken)) return;
    const attempt = this.#out.add({ ...name, attempt: 0 }, "assigned");
    this.#settle(attempt, {
      action: "withdraw",
      status: "timeout",
      reason: "claimed, but the answer to the claim was lost",
    });
  }

  /** Asks the device to end an attempt. */
  cancel(attempt: { workId: string; attemptToken: string; reason: string }): void {
    const held = this.#ahead.remove(attempt.attemptToken);
    if (held) {
      // The device has never heard of the attempt.
      this.#giveBack(
        { ...held.run, kind: "run", workId: held.run.runId },
        { action: "finish", status: "cancelled", reason: attempt.reason },
      );
      this.#services.wake(this);
      return;
    }
    if (this.#state === "serving" || this.#state === "draining") this.#link.send(cancelOf(attempt));
  }

  /** An attempt was settled, on any replica: its slot is free. */
  settled(attemptToken: string): void {
    if (this.#ahead.remove(attemptToken)) {
      this.#services.wake(this);
      return;
    }
    const attempt = this.#forget(attemptToken);
    if (attempt && attempt.state !== "reporting" && attempt.state !== "accepting") this.#disown(attempt);
  }

  /** Removes an attempt from the session's memory: its slot is free. */
  #forget(attemptToken: string): OutstandingAttempt | undefined {
    const wasFull = this.freeSlots() === 0;
    const attempt = this.#out.remove(attemptToken);
    if (!attempt) return undefined;
    if (wasFull) this.#freeSince = performance.now();
    this.#ahead.pushDue();
    this.#services.wake(this);
    return attempt;
  }

  /** A newer session of the device took over. */
  replaced(): void {
    if (this.#state === "closed") return;
    const message = "a newer connection of this device took over";
    this.#link.send(drainOf({ reason: DrainReason.REPLACED, message, reconnectAfterMs: 0 }));
    this.#isMoved = true;
    this.close("replaced");
  }

  /**
   * The database has the session as ended, while the device is connected: the device is asked to
   * open a new session.
   */
  unseated(): void {
    if (this.#state === "closed") return;
    const message = "the database holds this connection for ended; connect again";
    this.#link.send(drainOf({ reason: DrainReason.UNSPECIFIED, message, reconnectAfterMs: 0 }));
    this.#isMoved = true;
    this.close("unseated");
  }

  /** The device's token has ended. */
  revoked(): void {
    if (this.#state === "closed") return;
    const message = this.isWorker
      ? "the fleet worker was deleted or its token revoked; start it with a good one"
      : "the device was deleted or its token revoked; enrol it again";
    this.#link.send(drainOf({ reason: DrainReason.REVOKED, message, reconnectAfterMs: 0 }));
    this.close("revoked", new Refusal("unauthenticated", message));
  }

  /** Asks the device to connect elsewhere; cuts the stream after the grace. */
  drain(reason: DrainReason, message: string): void {
    if (this.#state !== "closed") this.#isMoved = true;
    if (this.#state !== "serving") {
      if (this.#state !== "draining")
        this.close("drained", new Refusal("unavailable", message, { retryAfterMs: 1_000 }));
      return;
    }
    this.#state = "draining";
    this.#ahead.giveBackAll();
    const spreadMs = reason === DrainReason.SHUTDOWN ? shutdownSpreadMs : moveSpreadMs;
    this.#link.send(drainOf({ reason, message, reconnectAfterMs: Math.random() * spreadMs }));
    clearTimeout(this.#ageTimer);
    this.#ageTimer = setTimeout(() => this.close("drained"), drainGraceMs + shutdownSpreadMs);
  }

  /** The device has closed its side; it still reads the answers to its last messages. */
  left(): void {
    if (this.#underWay === 0) {
      this.close("device_left");
      return;
    }
    if (this.#state === "serving") this.#state = "draining";
    this.#ahead.giveBackAll();
    this.#hasLeft = true;
    clearTimeout(this.#ageTimer);
    this.#ageTimer = setTimeout(() => this.close("device_left"), leavingMs);
  }

  /** The stream failed under the session: an unreadable or too large message, or a lost peer. */
  failed(error: unknown): void {
    this.close(error instanceof Error && this.#state !== "closed" ? "stream_failed" : "stream_broken", error);
  }

  /**
   * Ends the session. Its runs stay unchanged until the device returns or its TTL passes. Turns
   * fail at once, unless the server had asked the device to move.
   */
  close(cause: string, error?: unknown): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearTimeout(this.#timer);
    clearTimeout(this.#ageTimer);
    const pushed = new Set(this.#out.list().map((attempt) => attempt.attemptToken));
    this.#out.clear();
    this.#ahead.giveBackAll();
    this.#link.end(error);
    this.#over.abort();
    // During the opening the epoch is unknown; `#open` then reports the end.
    if (!this.#isOpening) this.#tellClosed(cause, pushed);
  }

  #tellClosed(cause: string, pushed: ReadonlySet<string> = new Set()): void {
    this.#services.closed(this, { cause, isBroken: !this.#isMoved, pushed });
  }

  /** A method, because the session may close during an await. */
  #isClosed(): boolean {
    return this.#state === "closed";
  }

  #named({ workId }: { workId: string }): { orgId: string; deviceId: string; workId: string } {
    return { orgId: this.orgId, deviceId: this.deviceId, workId };
  }

  /** Tells the device to stop an attempt that is no longer the device's. */
  #disown({ workId, attemptToken }: { workId: string; attemptToken: string }): void {
    this.#link.send(cancelOf({ workId, attemptToken, reason: "not yours any more" }));
  }

  /**
   * Takes an attempt away from the device. Its slot stays used until the settlement is in the
   * database.
   */
  #settle(
    attempt: OutstandingAttempt,
    how: Pick<Settlement, "action" | "status" | "reason" | "delayMs">,
    event: "take" | "report" = "take",
  ): void {
    this.#out.on(attempt, event);
    const { orgId } = this;
    const { workId, attemptToken } = attempt;
    const session = { epoch: this.#epoch, sessionId: this.#sessionId };
    const settlement = { orgId, workId, attemptToken, deviceId: null, session, ...how };
    this.#track(
      this.#whileServed(() => this.#services.works[attempt.kind].settle(settlement)).then((wasOurs) => {
        if (wasOurs) this.settled(attemptToken);
        // Ended elsewhere, or continued in a newer session: the device must not be told to stop.
        else if (wasOurs === false) this.#forget(attemptToken);
        // Otherwise the attempt stays; the next hello or the reaper settles it.
      }),
    );
  }

  /**
   * Repeats work that fails because the database is away, while the session lives; undefined when
   * the session has ended. The work is tried at least once: a claim may be answered after the
   * session's end and must be given back.
   */
  async #whileServed<T>(work: () => Promise<T>): Promise<T | undefined> {
    do {
      try {
        return await work();
      } catch (error) {
        const mayPass = isPassing(error) || (error instanceof Refusal && error.reason === "unavailable");
        if (!mayPass) {
          // A defect of the server, or a row that the database refuses: without an answer, the
          // device sends the message again.
          this.#log.error({ err: error }, "a device's message could not be worked on");
          return undefined;
        }
        await sleep(retryMs, this.#over.signal);
      }
    } while (!this.#over.signal.aborted);
    return undefined;
  }

  #track(work: Promise<void>): void {
    this.#underWay += 1;
    if (this.#underWay > underWayMax) {
      this.close(
        "flood",
        new Refusal("resource_exhausted", `more than ${underWayMax} messages wait for an answer`, {
          retryAfterMs: 1_000,
        }),
      );
    }
    work
      .catch((error: unknown) => this.#log.error({ err: error }, "a device's message could not be worked on"))
      .finally(() => {
        this.#underWay -= 1;
        if (this.#hasLeft && this.#underWay === 0) this.close("device_left");
      });
  }
}
