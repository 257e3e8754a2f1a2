import {
  type Accept,
  type ActivityReport,
  type AttemptRef,
  type Cancelled,
  type Completion,
  type ConnectRequest,
  type Heartbeat,
  type Output,
  type QuestionAsked,
  type QuestionClosed,
  QuestionCloseReason,
  type Reject,
  RejectReason,
} from "#gen/pinion/v1/device_pb.js";
import { Refusal } from "../../../errors.ts";
import { withdrawnDelayMs } from "../../../scheduler/endings/reaper.ts";
import { storedIn } from "../../../store/pg/incarnation.ts";
import type { Settlement } from "../../../store/work/attempts/settlements.ts";
import type { Assignments, SessionView } from "../attempts/assignments.ts";
import { beatsMissedMax, type OutstandingAttempt } from "../attempts/outstanding.ts";
import { restoreForgotten } from "../reconcile/forgotten.ts";
import type { Handling } from "../session/handling.ts";
import {
  type AnswerMessage,
  answerMessage,
  askedOf,
  hasStorableIds,
  refusedAnswer,
} from "../session/questions.ts";
import type { SessionServices } from "../session/session-services.ts";
import type { Link } from "../stream/link.ts";
import { activityBytes, activityStream } from "./activity.ts";
import { completionAckOf, heartbeatAckOf, invalidCompletionAckOf, response } from "./messages.ts";
import { completionAckFrame } from "./plain-frames.ts";
import { cancelledReportOf, invalidEndOf, reportOf } from "./reports.ts";

const noAttempts: readonly never[] = [];

/**
 * The messages of a serving device about its attempts.
 *
 *   accept ─▶ running      completion ─▶ stored ─▶ acknowledgement      reject ─▶ settled
 *   output, activity ─▶ feed      question ─▶ stored ─▶ answer
 */
export class AttemptMessages {
  readonly #session: SessionView;
  readonly #link: Link;
  readonly #services: SessionServices<never>;
  readonly #handling: Handling;
  readonly #assignments: Assignments;
  /** Made with the first completion, because most sessions are idle. */
  #reporting: Set<string> | undefined;

  constructor(
    session: SessionView,
    parts: { link: Link; services: SessionServices<never>; handling: Handling; assignments: Assignments },
  ) {
    this.#session = session;
    this.#link = parts.link;
    this.#services = parts.services;
    this.#handling = parts.handling;
    this.#assignments = parts.assignments;
  }

  /** Handles a message; the work goes on after the return. */
  receive({ message }: ConnectRequest): void {
    switch (message.case) {
      case "heartbeat":
        this.#beat(message.value);
        break;
      case "accept":
        this.#accept(message.value);
        break;
      case "reject":
        this.#reject(message.value);
        break;
      case "output":
        this.#output(message.value);
        break;
      case "activity":
        this.#activity(message.value);
        break;
      case "complete":
        this.#handling.track(this.#complete(message.value));
        break;
      case "cancelled":
        this.#handling.track(this.#cancelled(message.value));
        break;
      case "question":
        this.#handling.track(this.#ask(message.value));
        break;
      case "questionClosed":
        this.#handling.track(this.#closeQuestion(message.value));
        break;
    }
  }

  #beat(heartbeat: Heartbeat): void {
    this.#link.send(heartbeatAckOf(heartbeat));
    this.noteBeat(heartbeat.attempts);
  }

  /** Notes the attempts that a heartbeat lists. */
  noteBeat(attempts: readonly AttemptRef[]): void {
    if (attempts.length === 0 && this.#assignments.out.size === 0) {
      this.#services.beat(this.#assignments, noAttempts);
      return;
    }
    const { beating, lost, strangers } = this.#assignments.out.beat(attempts);
    const { orgId, deviceId } = this.#assignments;
    this.#services.beat(
      this.#assignments,
      beating.map(({ kind, workId, attemptToken }) => ({ orgId, deviceId, kind, workId, attemptToken })),
    );
    const reason = `lost by the device: ${beatsMissedMax} successive heartbeats did not list it`;
    for (const attempt of lost) {
      this.#services.telemetry.lost("not_listed");
      this.#assignments.settle(attempt, { action: "finish_or_retry", status: "timeout", reason });
    }
    for (const stranger of strangers) this.#assignments.disown(stranger);
  }

  #accept(accept: Accept): void {
    const attempt = this.#assignments.out.find(accept);
    if (!attempt) this.#assignments.disown(accept);
    if (!attempt || !this.#assignments.out.on(attempt, "accept")) return;
    this.#handling.track(this.#acceptDurably(attempt));
  }

  async #acceptDurably(attempt: OutstandingAttempt): Promise<void> {
    const result = await this.#handling.whileServed(() =>
      this.#services.works[attempt.kind].accept({
        orgId: this.#assignments.orgId,
        deviceId: this.#assignments.deviceId,
        workId: attempt.workId,
        attemptToken: attempt.attemptToken,
        attempt,
      }),
    );
    if (result === "running") {
      this.#assignments.out.on(attempt, "stored");
      this.#services.telemetry.accepted(
        this.#assignments.named(attempt),
        performance.now() - attempt.pushedAt,
      );
      this.#services.runMoved(this.#assignments, "run.started", attempt);
    } else if (result === "moot") {
      // The attempt ended before its accept was written; viewers are told of the start all the
      // same.
      this.#services.telemetry.accepted(
        this.#assignments.named(attempt),
        attempt.acceptedAt - attempt.pushedAt,
      );
      this.#services.runMoved(this.#assignments, "run.started", attempt);
    } else if (result === "gone" && attempt.state === "accepting") {
      // The attempt was settled meanwhile; unless the device has reported its end, the device is
      // told to stop.
      this.#assignments.settled(attempt.attemptToken);
      this.#assignments.disown(attempt);
    }
  }

  #reject(reject: Reject): void {
    const attempt = this.#assignments.out.find(reject);
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
    this.#assignments.settle(attempt, how, "report");
  }

  #output(output: Output): void {
    const attempt = this.#assignments.out.find(output);
    if (!attempt) return;
    this.#services.output({
      orgId: this.#assignments.orgId,
      deviceId: this.#assignments.deviceId,
      workId: attempt.workId,
      attempt: attempt.attempt,
      sequence: output.sequence,
      stream: output.stream,
      data: output.data,
    });
  }

  /** An agent's activities are relayed like output, and dropped under the same conditions. */
  #activity(report: ActivityReport): void {
    const attempt = this.#assignments.out.find(report);
    if (!attempt) return;
    for (const activity of report.activities) {
      this.#services.output({
        orgId: this.#assignments.orgId,
        deviceId: this.#assignments.deviceId,
        workId: attempt.workId,
        attempt: attempt.attempt,
        sequence: activity.sequence,
        stream: activityStream,
        data: activityBytes(activity),
      });
    }
  }

  /**
   * An attempt that may not ask, or not this, receives the default answer, so that its agent does
   * not wait.
   */
  async #ask(message: QuestionAsked): Promise<void> {
    const asked = askedOf(this.#assignments, message);
    const row = hasStorableIds(message)
      ? await this.#handling.whileServed(() => this.#services.ask(asked))
      : undefined;
    if (!row) return this.answer(refusedAnswer(asked));
    if (row.state !== "open") this.answer(answerMessage(row));
  }

  async #closeQuestion(message: QuestionClosed): Promise<void> {
    const { workId, attemptToken, questionId: id } = message;
    const { orgId, deviceId } = this.#assignments;
    const state = message.reason === QuestionCloseReason.EXPIRED ? "expired" : "withdrawn";
    await this.#handling.whileServed(() =>
      this.#services.closeQuestion({ orgId, deviceId, workId, attemptToken, id }, state),
    );
  }

  /** Sends the device the answer to a question of its agent. */
  answer({ workId, attemptToken, questionId, optionId, text, isDefault }: AnswerMessage): void {
    if (this.#session.state !== "serving" && this.#session.state !== "draining") return;
    const value = { workId, attemptToken, questionId, optionId, text, isDefault };
    this.#link.send(response({ case: "answer", value }));
  }

  async #complete(completion: Completion): Promise<void> {
    // A repeated completion of an attempt that is being stored shares the answer of the first.
    this.#reporting ??= new Set();
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
    const before = this.#services.incarnation();
    const attempt = this.#assignments.out.find(completion);
    // The report then carries the accept to the database, too.
    const accepting = attempt?.state === "accepting" ? attempt : undefined;
    if (attempt) {
      this.#assignments.out.on(attempt, "report");
      this.#assignments.times.add(startedAt - attempt.pushedAt);
    }
    const report = (workId = completion.workId) =>
      this.#services
        .report(reportOf(this.#assignments, completion, accepting, workId), attempt?.kind)
        .catch(returnInvalid);
    let verdict = await this.#handling.whileServed(() => report());
    if (verdict && !(verdict instanceof Refusal) && verdict.verdict === "unknown") {
      // Nearly all results that are offered again after a failover are known.
      const restored = await this.#handling.whileServed(async () => {
        return { workId: await restoreForgotten(this.#services, this.#assignments, completion) };
      });
      // It could not be restored. "Unknown" would let the device give up a result that may still be
      // stored; without an answer, the device sends the completion again.
      if (restored === undefined) return;
      if (restored.workId) verdict = await this.#handling.whileServed(() => report(restored.workId));
    }
    if (!verdict) return;
    if (verdict instanceof Refusal) return this.turnDown(completion, verdict.message);
    // The publisher has told the session of an attempt that ended with this report.
    if (this.#assignments.out.find(completion)) this.#assignments.settled(completion.attemptToken);
    const stored = verdict;
    const incarnation = storedIn(before, this.#services.incarnation());
    const acknowledgement = this.#link.prepare(
      () => completionAckOf(completion, stored, incarnation),
      () => completionAckFrame(completion, stored, incarnation),
    );
    this.#link.send(acknowledgement);
    const tookMs = performance.now() - startedAt;
    this.#services.telemetry.acknowledged(this.#assignments.named(completion), verdict.verdict, tookMs);
  }

  /**
   * A completion that can never be stored ends its run as failed, with the reason; a second attempt
   * would end the same way. The device sets the completion aside; a corrected completion counts as
   * late.
   */
  async turnDown(completion: Completion, why: string): Promise<void> {
    const attempt = this.#assignments.out.find(completion);
    if (attempt && attempt.state !== "settling") {
      this.#assignments.out.on(attempt, "report");
      const { orgId, epoch, sessionId } = this.#assignments;
      const { kind, workId, attemptToken } = attempt;
      const session = { epoch, sessionId };
      const settlement = {
        orgId,
        workId,
        attemptToken,
        deviceId: null,
        session,
        ...invalidEndOf(completion, why),
      };
      const wasOurs = await this.#handling.whileServed(() => this.#services.works[kind].settle(settlement));
      // The device sends an unanswered completion again.
      if (wasOurs === undefined) return;
      this.#assignments.settled(attemptToken);
    }
    this.#link.send(invalidCompletionAckOf(completion, why));
  }

  async #cancelled(cancelled: Cancelled): Promise<void> {
    const attempt = this.#assignments.out.find(cancelled);
    if (attempt) this.#assignments.out.on(attempt, "report");
    await this.#handling.whileServed(() =>
      this.#services.report(cancelledReportOf(this.#assignments, cancelled), attempt?.kind),
    );
    this.#assignments.settled(cancelled.attemptToken);
  }
}

/** A completion that can never be stored is answered, not tried again. */
function returnInvalid(error: unknown): Refusal {
  if (error instanceof Refusal && error.reason === "invalid_argument") return error;
  throw error;
}
