import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { refuse } from "../../../errors.ts";
import { isMoment } from "../../device/messages/moments.ts";

/** For a message: a moment, or nothing. */
export function timestampOf(date: Date): Timestamp;
export function timestampOf(date: Date | null | undefined): Timestamp | undefined;
export function timestampOf(date: Date | null | undefined): Timestamp | undefined {
  return date ? timestampFromDate(date) : undefined;
}

/**
 * Converts a message's timestamp. Refuses with `invalid_argument` a time outside of years 1 to
 * 9999, and nanoseconds beyond a second, which would lead out of them.
 */
export function dateOf(timestamp: Timestamp, field: string): Date {
  if (!isMoment(timestamp)) {
    refuse("invalid_argument", `${field}: not a moment in years 1 to 9999`, { field });
  }
  // Down to the millisecond: rounded up, the last moment would be in the year 10000.
  return new Date(Number(timestamp.seconds) * 1_000 + Math.floor(timestamp.nanos / 1e6));
}

/** A request's span of time, its ends in order. `path` precedes the fields' names in a refusal. */
export function spanOf(
  span: { since?: Timestamp | undefined; until?: Timestamp | undefined },
  path: string,
): { since: Date | undefined; until: Date | undefined } {
  const since = span.since && dateOf(span.since, `${path}since`);
  const until = span.until && dateOf(span.until, `${path}until`);
  if (since && until && since >= until) {
    refuse("invalid_argument", `${path}until: must be after since`, { field: `${path}until` });
  }
  return { since, until };
}
