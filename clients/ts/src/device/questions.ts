import { create } from "@bufbuild/protobuf";
import type { Question } from "../gen/pinion/v1/activity_pb.js";
import {
  type Answer,
  type ConnectRequest,
  QuestionAskedSchema,
  QuestionClosedSchema,
  QuestionCloseReason,
} from "../gen/pinion/v1/device_pb.js";

/** What a person answered, or nobody. */
export interface GivenAnswer {
  /** The chosen option; empty: nobody answered and no option stands for that. */
  optionId: string;
  text: string;
  /** Nobody chose it: the default at the deadline. */
  isDefault: boolean;
}

/** Questions that may be open at once for one attempt. An agent that asks more is answered as if nobody had. */
export const OPEN_QUESTIONS_MAX = 16;
/**
 * How long after its deadline a question still waits for the server, which decides by its own clock; without an answer by
 * then the device takes the default by itself, so that an agent does not wait for ever on a lost network.
 */
export const EXPIRY_GRACE_MS = 5 * 60_000;

interface Open {
  readonly attempt: { runId: string; attemptToken: string };
  readonly question: Question;
  readonly resolve: (answer: GivenAnswer) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * The questions of this device's agents that wait for an answer. A question goes up at once and again after each welcome,
 * until an answer comes down; the server answers a repeated question as it answered the first.
 */
export class Questions {
  readonly #send: (message: ConnectRequest["message"]) => boolean;
  readonly #open = new Map<string, Open>();
  #isTaken = false;

  constructor(send: (message: ConnectRequest["message"]) => boolean) {
    this.#send = send;
  }

  /** A session is open. `isTaken`: its server takes questions. */
  opened(isTaken: boolean): void {
    this.#isTaken = isTaken;
    for (const { attempt, question } of this.#open.values()) this.#ask(attempt, question);
  }

  /**
   * Asks, and resolves to the answer. Without a server that takes questions, with too many of them open, and at the
   * deadline of a lost network, nobody has answered. Never rejects.
   */
  ask(
    attempt: { runId: string; attemptToken: string },
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
      const timer = setTimeout(() => close(QuestionCloseReason.EXPIRED), options.timeoutMs + EXPIRY_GRACE_MS);
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

  /** The server says what was answered. What is not open here was answered before. */
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

  #ask(attempt: { runId: string; attemptToken: string }, question: Question): void {
    if (!this.#isTaken) return;
    this.#send({ case: "question", value: create(QuestionAskedSchema, { ...attempt, question }) });
  }

  #sendClosed(
    attempt: { runId: string; attemptToken: string },
    questionId: string,
    reason: QuestionCloseReason,
  ): void {
    const { runId, attemptToken } = attempt;
    // If there is no stream, the attempt's completion closes it.
    this.#send({
      case: "questionClosed",
      value: create(QuestionClosedSchema, { runId, attemptToken, questionId, reason }),
    });
  }
}

const keyOf = (attemptToken: string, questionId: string) => `${attemptToken}/${questionId}`;
