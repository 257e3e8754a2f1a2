import {
  type AttemptRef,
  type Completion,
  type ConnectRequest,
  DrainReason,
  HeldAttemptState,
  type Hello,
} from "#gen/pinion/v1/device_pb.js";
import { Refusal } from "../../../errors.ts";
import { type Leaving, refusalOf } from "../../../store/work/service/org-moves.ts";
import type { WheelTimer } from "../../../time/timer-wheel.ts";
import type { Principal } from "../../access/principal.ts";
import type { OpenStream } from "../../access/streams.ts";
import { Assignments, type SessionView } from "../attempts/assignments.ts";
import { AttemptMessages } from "../messages/attempt-messages.ts";
import { LogRequests } from "../messages/log-requests.ts";
import { drainOf, welcomeOf } from "../messages/messages.ts";
import { normalizeName } from "../messages/reports.ts";
import type { Opening } from "../reconcile/reconcile.ts";
import type { Link } from "../stream/link.ts";
import { Handling, type HandlingOwner } from "./handling.ts";
import {
  drainMsMax,
  fellSilent,
  missedHello,
  type Parting,
  type PartingName,
  partingOf,
  partingTo,
  reconnectAfterMs,
  refusalOfOpening,
} from "./partings.ts";
import type { AnswerMessage } from "./questions.ts";
import { SessionIdentity } from "./session-identity.ts";
import type { SessionServices } from "./session-services.ts";
import { problemOf, reactions, type SessionState } from "./session-table.ts";

/** Part of the TTL: a worker silent for longer gets no work; a large fleet beats every half TTL. */
const quietPartOfTtl = 0.75;
/** Milliseconds in which a device that has closed its side is still answered. */
const leavingMs = 2_000;

/**
 * A device's live stream on the replica, with a memory of the attempts on the device. The database
 * decides; the session only sends and receives, and may be lost at any time. session-table.ts has
 * the states and the reaction to each message in each state; outstanding.ts has the states of an
 * attempt.
 *
 *   hello ─▶ reconcile with the database ─▶ welcome ─▶ serving
 *   serving:  claimed run or turn ─▶ held until due and a slot is free (ahead.ts)
 *               ─▶ assignment ─▶ accept ─▶ completion ─▶ stored ─▶ acknowledgement
 *   end:      runs stay until the TTL; turns fail at once unless the server moved the device
 */
export class Session extends SessionIdentity implements SessionView, HandlingOwner, OpenStream {
  readonly #services: SessionServices<Session>;
  readonly #link: Link;
  readonly #handling: Handling;
  /** The attempts out at the device, or held for the device. */
  readonly assignments: Assignments;
  readonly #messages: AttemptMessages;
  #state: SessionState = "greeting";
  #isOpening = false;
  #hasLeft = false;
  /**
   * The server asked the device to connect elsewhere: its turns continue there, unless the deadline
   * passes first.
   */
  #isMoved = false;
  /** Made at its first use. */
  #logRequests: LogRequests | undefined;
  #heardAt = performance.now();
  /** Ends the session without a hello, and after a silence. */
  #silence: WheelTimer;
  /** Ends or drains the session after a time. */
  #age: WheelTimer | undefined;

  constructor(options: { principal: Principal; link: Link; services: SessionServices<Session> }) {
    const { principal, services } = options;
    super(principal, services.log);
    this.#services = services;
    const { link } = options;
    this.#link = link;
    const handling = new Handling(this);
    this.#handling = handling;
    this.assignments = new Assignments(this, { link, services, handling });
    const parts = { link, services, handling, assignments: this.assignments };
    this.#messages = new AttemptMessages(this, parts);
    this.#silence = services.after(services.timers.helloDeadlineMs, Session.#missHello, this);
  }

  // Of timers: one function for all sessions.
  static readonly #missHello = (session: Session): void =>
    session.close("no_hello", missedHello(session.#services.timers.helloDeadlineMs));
  static readonly #lookAt = (session: Session): void => session.#watch();
  static readonly #retire = (session: Session): void =>
    session.drain(DrainReason.MAX_AGE, "the connection has reached its maximum age");

  flooded(refusal: Refusal): void {
    this.close("flood", refusal);
  }

  rested(): void {
    if (this.#hasLeft) this.close("device_left");
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Sends the device the answer to a question of its agent. */
  answer(answer: AnswerMessage): void {
    this.#messages.answer(answer);
  }

  /**
   * Handles a message. The next message may follow at once, or when the returned promise resolves:
   * only the hello needs time. The other messages return no promise, to save allocations.
   */
  receive(request: ConnectRequest): Promise<void> | undefined {
    this.#heard();
    const problem = problemOf(this.#state, request);
    if (problem === "ignored") return undefined;
    // A completion that can never be stored is answered, so that the device does not send it for
    // ever.
    if (problem?.completion) {
      this.#handling.track(this.#messages.turnDown(problem.completion, problem.refusal.message));
      return undefined;
    }
    if (problem) {
      this.close(problem.cause, problem.refusal);
      return undefined;
    }
    if (request.message.case === "hello") return this.#open(request.message.value);
    if (request.message.case === "logExcerpt") this.#logRequests?.arrived(request.message.value);
    else this.#messages.receive(request);
    return undefined;
  }

  /** Asks the device for the end of its log, for a person on the replica `replyTo`. */
  askForLog(asked: { requestId: string; linesMax: number; replyTo: string }): void {
    if (this.#state !== "serving") return;
    this.#logRequests ??= new LogRequests(this.orgId, this.#link, this.#services);
    this.#logRequests.ask(asked);
  }

  /**
   * Handles a message that is no valid protobuf. A completion whose attempt can be read is answered
   * as invalid, like a completion that breaks a rule; any other message ends the stream.
   */
  receiveUnreadable(problem: string, completion?: Completion): void {
    this.#heard();
    if (this.#state === "closed") return;
    const why = `the message is no valid protobuf: ${problem}`;
    if (!completion || reactions[this.#state].complete !== "take") {
      this.close("bad_message", new Refusal("invalid_argument", why));
      return;
    }
    normalizeName(completion);
    this.#handling.track(this.#messages.turnDown(completion, `complete: ${why}`));
  }

  async #open(hello: Hello): Promise<void> {
    this.#state = "opening";
    this.greet();
    this.#silence.cancel();
    this.#isOpening = true;
    let opening: Opening;
    try {
      opening = await this.#services.open(this, hello);
    } catch (error) {
      this.#isOpening = false;
      if (this.#isClosed()) return this.#tellClosed("gone_while_opening");
      this.close("not_opened", refusalOfOpening(error, this.log));
      return;
    }
    this.#isOpening = false;
    this.#serve(hello, opening);
  }

  #serve(hello: Hello, opening: Opening): void {
    this.identify(opening, hello.agentKinds);
    if (this.#isClosed()) {
      // The replaced stream and the released attempts are announced all the same.
      this.#services.opened(this, opening);
      this.#tellClosed("gone_while_opening");
      return;
    }
    const ended = new Set(
      hello.held.filter(({ state }) => state === HeldAttemptState.FINISHED).map((held) => held.attemptToken),
    );
    const { maxConcurrency } = hello;
    this.assignments.begin({ session: this, maxConcurrency, continuing: opening.continuing, ended });
    this.#state = "serving";
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
    this.#age = this.#services.after(timers.ageMsMax * (0.9 + 0.2 * Math.random()), Session.#retire, this);
    for (const held of opening.continuing) {
      if (held.isCancelRequested)
        this.assignments.cancel({ ...held, reason: held.cancelReason ?? "cancelled" });
    }
    this.#services.opened(this, opening);
  }

  /** Whether the session's state takes heartbeats. */
  get takesBeats(): boolean {
    return reactions[this.#state].heartbeat === "take";
  }

  /**
   * Handles a heartbeat with the attempts of an earlier one, checked then; the caller answers it.
   */
  beatAgain(attempts: readonly AttemptRef[]): void {
    this.#heard();
    this.#messages.noteBeat(attempts);
  }

  #heard(): void {
    const wasQuiet = this.isWorker && this.isQuiet;
    this.#heardAt = performance.now();
    if (wasQuiet && this.#state === "serving") this.assignments.wake();
  }

  /** Whether the device has been silent for so long that it may be lost. */
  get isQuiet(): boolean {
    return performance.now() - this.#heardAt > this.#services.timers.ttlMs * quietPartOfTtl;
  }

  /** The watchdog: a timer that ends the session after a silence of `ttlMs` milliseconds. */
  #watch(): void {
    const { ttlMs } = this.#services.timers;
    const leftMs = ttlMs - (performance.now() - this.#heardAt);
    if (leftMs <= 0) this.close("silent", fellSilent(ttlMs));
    else this.#silence = this.#services.after(leftMs, Session.#lookAt, this);
  }

  /** Ends the session for a reason of the server, and tells the device. */
  part(name: PartingName): void {
    this.#part(partingOf(name, this));
  }

  #part({ cause, reason, message, isMoved, refusal, reconnectAfterMs = 0, cell }: Parting): void {
    if (this.#state === "closed") return;
    this.#link.send(drainOf({ reason, message, reconnectAfterMs, ...(cell === undefined ? {} : { cell }) }));
    if (isMoved) this.#isMoved = true;
    this.close(cause, refusal && new Refusal(refusal, message));
  }

  /**
   * The token has ended, or its org leaves the cell: the device comes back, to the new cell if
   * known.
   */
  end(leaving?: Leaving): void {
    if (!leaving) this.part("revoked");
    else if (leaving.cell === undefined) this.drain(DrainReason.UNSPECIFIED, refusalOf(leaving).message);
    else this.#part(partingTo(leaving.cell, this.#services.timers.ttlMs));
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
    this.assignments.giveBackAll();
    const afterMs = reconnectAfterMs(reason, this.#services.timers.ttlMs);
    this.#link.send(drainOf({ reason, message, reconnectAfterMs: afterMs }));
    this.#endAfter(drainMsMax, "drained");
  }

  /** The device has closed its side; it still reads the answers to its last messages. */
  left(): void {
    if (this.#handling.isIdle) {
      this.close("device_left");
      return;
    }
    if (this.#state === "serving") this.#state = "draining";
    this.assignments.giveBackAll();
    this.#hasLeft = true;
    this.#endAfter(leavingMs, "device_left");
  }

  #endAfter(ms: number, cause: string): void {
    this.#age?.cancel();
    this.#age = this.#services.after(ms, () => this.close(cause));
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
    this.#silence.cancel();
    this.#age?.cancel();
    const pushed = this.assignments.end();
    this.#link.end(error);
    this.#handling.stop();
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
}
