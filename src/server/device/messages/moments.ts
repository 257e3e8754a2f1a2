/** Moments and lengths of time in devices' messages, by the devices' own clocks. */
import { type Duration, durationMs, type Timestamp } from "@bufbuild/protobuf/wkt";

/** Years 1 to 9999. */
const secondsMin = -62_135_596_800n;
const secondsMax = 253_402_300_799n;

/** Whether a timestamp is a moment: JSON can write no other, and fails as a whole. */
export function isMoment({ seconds, nanos }: Timestamp): boolean {
  return seconds >= secondsMin && seconds <= secondsMax && nanos >= 0 && nanos <= 999_999_999;
}

/** The message, without a timestamp in the field that is no moment. */
export function withMoment<Field extends string, Message extends { [Key in Field]?: Timestamp }>(
  message: Message,
  field: Field,
): Message {
  const moment = message[field];
  if (moment && !isMoment(moment)) delete message[field];
  return message;
}

/** The longest of google.protobuf.Duration: 10,000 years. */
const lengthSecondsMax = 315_576_000_000n;

/** A length in milliseconds; undefined for one that no clock can have measured. */
export function lengthMs(length: Duration | undefined): number | undefined {
  if (!length || length.seconds < 0n || length.seconds >= lengthSecondsMax) return undefined;
  return length.nanos < 0 || length.nanos > 999_999_999 ? undefined : durationMs(length);
}
