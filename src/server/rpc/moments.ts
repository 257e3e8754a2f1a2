import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { refuse } from "../../errors.ts";

/** Years 1 to 9999, as google.protobuf.Timestamp allows. */
const secondsMin = -62_135_596_800n;
const secondsMax = 253_402_300_799n;

/** For a message: a moment, or nothing. */
export function timestampOf(date: Date | null | undefined): Timestamp | undefined {
  return date ? timestampFromDate(date) : undefined;
}

/**
 * Converts a message's timestamp. Refuses with `invalid_argument` a time outside of years 1 to
 * 9999.
 */
export function dateOf(timestamp: Timestamp, field: string): Date {
  if (timestamp.seconds < secondsMin || timestamp.seconds > secondsMax) {
    refuse("invalid_argument", `${field}: not a moment in years 1 to 9999`, { field });
  }
  return timestampDate(timestamp);
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
