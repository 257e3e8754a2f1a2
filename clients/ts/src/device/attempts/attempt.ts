import type { Activity, Question } from "../../gen/pinion/v1/activity_pb.js";
import type { Assignment, Completion, ConnectRequest } from "../../gen/pinion/v1/device_pb.js";
import type { AttemptNames, DeviceEventBody } from "../events.ts";
import type { AttemptResult } from "../results/completion.ts";
import type { GivenAnswer } from "./questions.ts";

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
  /**
   * Notes the result of work that is done, while its program still has to end. The result counts if
   * the daemon stops before the handler settles.
   */
  answered(result: AttemptResult): void;
}

/** Refusal of an assignment before the accept. */
export interface Rejection {
  reason: "busy" | "unsupported" | "invalid";
  /** For people. */
  message: string;
}

export type AssignmentHandler = (assignment: Assignment, context: AttemptContext) => Promise<AttemptResult>;
export type Admission = (assignment: Assignment) => Promise<Rejection | undefined> | Rejection | undefined;

/** An attempt in progress on this device. */
export interface Attempt {
  readonly names: AttemptNames;
  readonly assignment: Assignment;
  readonly controller: AbortController;
  /** `ending`: the signal is aborted and the handler has not settled yet. */
  phase: "admitting" | "running" | "ending";
  end: AttemptAborted["why"] | undefined;
  /** The result known before the handler has settled. */
  answer: AttemptResult | undefined;
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
