import {
  type Completion,
  type ConnectRequest,
  ConnectRequestSchema,
  Outcome,
} from "#gen/pinion/v1/device_pb.js";
import { Refusal } from "../../../errors.ts";
import { isUuid } from "../../../values/ids.ts";
import { isBadText } from "../../access/interceptors/bad-text.ts";
import { checkMessage } from "../../access/interceptors/validate.ts";
import { normalizeNames, reportsNothing } from "../messages/reports.ts";

/**
 * The states of a device session, and the reaction to each message in each state.
 *
 *   greeting ──hello──▶ opening ──reconciled──▶ serving ──drain──▶ draining
 *      │                   │                      │                   │
 *      └───────────────────┴─────── end ──────────┴───────────────────┘
 *                                    ▼
 *                                 closed
 *
 *   greeting   waits for the hello
 *   opening    the hello is being reconciled with the database
 *   serving    sends work, receives heartbeats and completions
 *   draining   the device was asked to connect elsewhere; no new work, messages are still handled
 *   closed     ended; messages are ignored
 */
export type SessionState = "greeting" | "opening" | "serving" | "draining" | "closed";

export type SessionInput = NonNullable<ConnectRequest["message"]["case"]>;

export type Reaction =
  /** Checked, and handled by the function of its kind. */
  | "take"
  /** Ends the stream: the hello comes first. */
  | "refuse_before_hello"
  /** Ends the stream: a second hello is not allowed. */
  | "refuse_second_hello"
  | "ignore";

export const reactions: Record<SessionState, Record<SessionInput, Reaction>> = {
  greeting: {
    hello: "take",
    heartbeat: "refuse_before_hello",
    accept: "refuse_before_hello",
    reject: "refuse_before_hello",
    output: "refuse_before_hello",
    complete: "refuse_before_hello",
    cancelled: "refuse_before_hello",
    activity: "refuse_before_hello",
    question: "refuse_before_hello",
    questionClosed: "refuse_before_hello",
    logExcerpt: "refuse_before_hello",
  },
  // The device has not been welcomed yet.
  opening: {
    hello: "refuse_second_hello",
    heartbeat: "refuse_before_hello",
    accept: "refuse_before_hello",
    reject: "refuse_before_hello",
    output: "refuse_before_hello",
    complete: "refuse_before_hello",
    cancelled: "refuse_before_hello",
    activity: "refuse_before_hello",
    question: "refuse_before_hello",
    questionClosed: "refuse_before_hello",
    logExcerpt: "refuse_before_hello",
  },
  serving: {
    hello: "refuse_second_hello",
    heartbeat: "take",
    accept: "take",
    reject: "take",
    output: "take",
    complete: "take",
    cancelled: "take",
    activity: "take",
    question: "take",
    questionClosed: "take",
    logExcerpt: "take",
  },
  draining: {
    hello: "refuse_second_hello",
    heartbeat: "take",
    accept: "take",
    reject: "take",
    output: "take",
    complete: "take",
    cancelled: "take",
    activity: "take",
    question: "take",
    questionClosed: "take",
    logExcerpt: "take",
  },
  closed: {
    hello: "ignore",
    heartbeat: "ignore",
    accept: "ignore",
    reject: "ignore",
    output: "ignore",
    complete: "ignore",
    cancelled: "ignore",
    activity: "ignore",
    question: "ignore",
    questionClosed: "ignore",
    logExcerpt: "ignore",
  },
};

/** Why a message ends the session, or, of a completion, why the completion is turned down. */
type Problem = { cause: string; refusal: Refusal; completion?: Completion };

/**
 * The problem of a message in a state; undefined for a message that is to be handled. Writes the
 * message's ids in lower case.
 */
export function problemOf(state: SessionState, request: ConnectRequest): Problem | "ignored" | undefined {
  const input = request.message.case;
  if (!input) {
    const message = "message: exactly one is required";
    return { cause: "bad_message", refusal: new Refusal("invalid_argument", message, { field: "message" }) };
  }
  const reaction = reactions[state][input];
  if (reaction === "ignore") return "ignored";
  if (reaction === "refuse_before_hello" || reaction === "refuse_second_hello") {
    const why =
      reaction === "refuse_before_hello"
        ? `${input} before the hello was answered; send hello first, and wait for welcome`
        : "a second hello; a stream has one, so open another stream";
    return { cause: "out_of_order", refusal: new Refusal("failed_precondition", why) };
  }
  normalizeNames(request);
  const violation = isPlainlyValid(request) ? undefined : checkMessage(ConnectRequestSchema, request);
  if (!violation) return undefined;
  const { message, field } = violation;
  const problem = { cause: "bad_message", refusal: new Refusal("invalid_argument", message, { field }) };
  return request.message.case === "complete" ? { ...problem, completion: request.message.value } : problem;
}

/** Bytes, as in the .proto. A UTF-16 unit is three bytes of UTF-8 at most. */
const outputBytesMax = 1_048_576;
const reasonBytesMax = 4_000;
const signalBytesMax = 32;
const bytesPerUnitMax = 3;
/** Seconds: no attempt takes so long, and every library takes such a duration. */
const durationMax = 1_000_000_000n;

/**
 * The rules of the two messages of every run, an accept and a completion without a report, checked
 * on their fields. The rules in the .proto have the last word: they are asked about every message
 * that is not plainly within them. `test/unit/server/device/plain-requests.test.ts` compares.
 *
 * @returns true only for a valid message; false says nothing.
 */
export function isPlainlyValid({ message }: ConnectRequest): boolean {
  switch (message.case) {
    case "accept":
      return isNamed(message.value);
    case "complete":
      return isNamed(message.value) && isPlain(message.value);
    default:
      return false;
  }
}

function isNamed({ workId, attemptToken }: { workId: string; attemptToken: string }): boolean {
  return isUuid(workId) && isUuid(attemptToken);
}

function isPlain(completion: Completion): boolean {
  const { outcome, output, reason, signal, duration } = completion;
  return (
    outcome !== Outcome.UNSPECIFIED &&
    outcome in Outcome &&
    isWithin(output, outputBytesMax) &&
    isWithin(reason, reasonBytesMax) &&
    isWithin(signal, signalBytesMax) &&
    (!duration || (duration.seconds >= 0n && duration.seconds < durationMax && duration.nanos >= 0)) &&
    completion.nextSnapshot === undefined &&
    !completion.retryAfter &&
    !completion.reoffer &&
    !completion.turnReoffer &&
    reportsNothing(completion)
  );
}

function isWithin(text: string, bytesMax: number): boolean {
  return text.length * bytesPerUnitMax <= bytesMax && !isBadText(text);
}
