/** Moments and lengths of time that devices name, by clocks that nobody knows. */
import { type Duration, durationMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { Activity, Question } from "#gen/pinion/v1/activity_pb.js";

/** Years 1 to 9999. */
const secondsMin = -62_135_596_800n;
const secondsMax = 253_402_300_799n;

/** Whether a timestamp is a moment: JSON can write no other, and fails as a whole. */
export function isMoment({ seconds, nanos }: Timestamp): boolean {
  return seconds >= secondsMin && seconds <= secondsMax && nanos >= 0 && nanos <= 999_999_999;
}

/** The activity; without its moment, if that is none. */
export function withMoment(activity: Activity): Activity {
  if (activity.at && !isMoment(activity.at)) delete activity.at;
  return activity;
}

/** The question; without its moment, if that is none. */
export function withAskedAt(question: Question): Question {
  if (question.askedAt && !isMoment(question.askedAt)) delete question.askedAt;
  return question;
}

/** The longest of google.protobuf.Duration: 10,000 years. */
const lengthSecondsMax = 315_576_000_000n;

/** A length in milliseconds; undefined for one that no clock can have measured. */
export function lengthMs(length: Duration | undefined): number | undefined {
  if (!length || length.seconds < 0n || length.seconds >= lengthSecondsMax) return undefined;
  return length.nanos < 0 || length.nanos > 999_999_999 ? undefined : durationMs(length);
}
