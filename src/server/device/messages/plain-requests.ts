/**
 * The rules of the two messages of every run, an accept and a completion without a report, checked
 * on their fields. The rules in the .proto have the last word: they are asked about every message
 * that is not plainly within them. `test/unit/server/plain-requests.test.ts` compares.
 */
import { type Completion, type ConnectRequest, Outcome } from "#gen/pinion/v1/device_pb.js";
import { isUuid } from "../../../ids.ts";
import { isBadText } from "../../access/interceptors/bad-text.ts";
import { reportsNothing } from "./agent-report.ts";

/** Bytes, as in the .proto. A UTF-16 unit is three bytes of UTF-8 at most. */
const outputBytesMax = 1_048_576;
const reasonBytesMax = 4_000;
const signalBytesMax = 32;
const bytesPerUnitMax = 3;
/** Seconds: no attempt takes so long, and every library takes such a duration. */
const durationMax = 1_000_000_000n;

/** True only for a valid message; false says nothing. */
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
