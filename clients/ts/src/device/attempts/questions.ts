import { create } from "@bufbuild/protobuf";
import type { Question } from "../../gen/pinion/v1/activity_pb.js";
import {
  type Answer,
  type ConnectRequest,
  QuestionAskedSchema,
  QuestionClosedSchema,
  QuestionCloseReason,
} from "../../gen/pinion/v1/device_pb.js";
import { TIMER_MS_MAX } from "../lifecycle.ts";

/** A person's answer, or the default. */
export interface GivenAnswer {
  /** The chosen option; empty: no answer, and the question has no default option. */
  optionId: string;
  text: string;
  /** No person chose the option: the default applied at the deadline. */
  isDefault: boolean;
}

/**
 * Maximum of open questions per attempt. A question beyond the bound gets the default answer at
 * once.
 */
const OPEN_QUESTIONS_MAX = 16;
/**
 * Time in ms after the deadline during which the device still waits for the server, whose clock
 * decides. Without an answer by then the device takes the default, so an agent does not wait for
 * ever on a lost network.
 */
const EXPIRY_GRACE_MS = 5 * 60_000;

interface Open {
  readonly attempt: { workId: string; attemptToken: string };
  readonly question: Question;
  readonly resolve: (answer: GivenAnswer) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * Open questions of this device's agents. A question is sent at once and again after each welcome,
 * until an answer arrives; the server answers a repeated question in the same way as the first.
 */
export class Questions {
  readonly #send: (message: ConnectRequest["message"]) => boolean;
  readonly #open = new Map<string, Open>();
  #isTaken = false;

  constructor(send: (message: ConnectRequest["message"]) => boolean) {
    this.#send = send;
  }

  /** A session is open. `isTaken`: the server accepts questions. */
  opened(isTaken: boolean): void {
    this.#isTaken = isTaken;
    for (const { attempt, question } of this.#open.values()) this.#ask(attempt, question);
  }

  /**
   * Asks, and resolves to the answer. The answer is the default if the server does not accept
   * questions, if too many questions are open, or at the deadline of a lost network. Never rejects.
   */
  ask(
    attempt: { workId: string; attemptToken: string },
    question: Question,
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<GivenAnswer> {
    const nobody: GivenAnswer = { optionId: "", text: "", isDefault: true };
    const ofAttempt = [...this.#open.values()].filter(
      (open) => open.attempt.attemptToken === attempt.attemptToken,
    );
    if (!this.#isTaken || ofAttempt.length >= OPEN_QUESTIONS_MAX || options.signal.aborted) {
      return Promise.resolve(nobody);
    }
    const key = keyOf(attempt.attemptToken, question.id);
    return new Promise((resolve) => {
      const close = (reason: QuestionCloseReason) => {
        if (this.#settle(key, nobody)) this.#sendClosed(attempt, question.id, reason);
      };
      const timer = setTimeout(
        () => close(QuestionCloseReason.EXPIRED),
        Math.min(options.timeoutMs + EXPIRY_GRACE_MS, TIMER_MS_MAX),
      );
      timer.unref();
      const onAbort = () => close(QuestionCloseReason.WITHDRAWN);
      options.signal.addEventListener("abort", onAbort, { once: true });
      this.#open.set(key, {
        attempt,
        question,
        timer,
        resolve: (answer) => {
          options.signal.removeEventListener("abort", onAbort);
          resolve(answer);
        },
      });
      this.#ask(attempt, question);
    });
  }

  /** Delivers the server's answer. A question not open here was answered before. */
  answered(answer: Answer): void {
    const { optionId, text, isDefault } = answer;
    this.#settle(keyOf(answer.attemptToken, answer.questionId), { optionId, text, isDefault });
  }

  #settle(key: string, answer: GivenAnswer): boolean {
    const open = this.#open.get(key);
    if (open === undefined) return false;
    this.#open.delete(key);
    clearTimeout(open.timer);
    open.resolve(answer);
    return true;
  }

  #ask(attempt: { workId: string; attemptToken: string }, question: Question): void {
    if (!this.#isTaken) return;
    this.#send({ case: "question", value: create(QuestionAskedSchema, { ...attempt, question }) });
  }

  #sendClosed(
    attempt: { workId: string; attemptToken: string },
    questionId: string,
    reason: QuestionCloseReason,
  ): void {
    const { workId, attemptToken } = attempt;
    // Without a stream, the attempt's completion closes the question.
    this.#send({
      case: "questionClosed",
      value: create(QuestionClosedSchema, { workId, attemptToken, questionId, reason }),
    });
  }
}

const keyOf = (attemptToken: string, questionId: string) => `${attemptToken}/${questionId}`;
