import { Mistake } from "./mistake.ts";

/** Times written by people: a local time of a zone, or a time with its offset from UTC. */

const pattern = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.0+)?)?)?\s*(Z|[+-]\d\d:?\d\d)?$/i;

/** The text has the shape of a moment. */
export function isMoment(text: string): boolean {
  return /^\d{4}-\d\d-\d\d/.test(text);
}

/** Of a date and a time of day, in any order. */
type SixNumbers = [number, number, number, number, number, number];

/**
 * The time in milliseconds since 1970. A local time within a gap means the end of the gap; a
 * repeated local time means its first occurrence. Throws a {@link Mistake} for an invalid text.
 */
export function momentOf(text: string, zone: string): number {
  const match = pattern.exec(text.trim());
  if (!match) {
    throw new Mistake(
      `"${text}" is no moment; write it like 2026-12-01T09:00, with Z or an offset if it is not a time of the zone`,
    );
  }
  const [, year, month, day, hour, minute, second, offset] = match;
  if (hour === undefined)
    throw new Mistake(`"${text}" has no time of day; write it like ${text.trim()}T09:00`);
  const [y, mo, d, h, mi, s] = [year, month, day, hour, minute, second ?? "0"].map(Number) as SixNumbers;
  const local = Date.UTC(y, mo - 1, d, h, mi, s);
  const isDate = mo >= 1 && mo <= 12 && d >= 1 && d <= new Date(Date.UTC(y, mo, 0)).getUTCDate();
  if (!isDate) throw new Mistake(`there is no date ${year}-${month}-${day}`);
  if (h > 23 || mi > 59 || s > 59)
    throw new Mistake(`there is no time ${hour}:${minute}${second ? `:${second}` : ""}`);
  if (y < 1970 || y > 9998) throw new Mistake("the year must be between 1970 and 9998");
  if (offset === undefined) return fromLocal(local, zone);
  if (offset.toUpperCase() === "Z") return local;
  const [, sign, hours, minutes] = /^([+-])(\d\d):?(\d\d)$/.exec(offset) ?? [];
  return local - (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) * 60_000;
}

/** No clock is further from UTC. */
const offsetMsMax = 86_400_000;

function fromLocal(local: number, zone: string): number {
  let span = spanAt(zone, local - offsetMsMax);
  while (local >= span.end + span.offset) span = spanAt(zone, span.end);
  return Math.max(span.start, local - span.offset);
}

/**
 * The offsets of a zone from UTC by Intl: spans of one offset, and the changes between them. All
 * times and offsets are in milliseconds; a local time is its clock's reading taken as if in UTC.
 */

/**
 * A change of the clocks: `at` reads as `at + before` until then, and as `at + after` from then on.
 */
export type Change = { at: number; before: number; after: number };

/** A span [start, end) with a constant offset. */
export type Span = {
  start: number;
  end: number;
  offset: number;
  /** The change at `start`, if any; a span may also begin at the turn of a year. */
  change: Change | undefined;
  /** The last change at or before `start`, of the same or the previous year. */
  lastChange: Change | undefined;
};

/**
 * Milliseconds. Two opposite changes within less than this are not seen; no zone has had such
 * changes since 1970.
 */
const lookEveryMs = 86_400_000;
/** Maximum cached pairs of a zone and a year: a fleet's zones, with the years around now. */
const yearsMax = 5_000;

const years = new Map<string, Span[]>();
const changesOf = new Map<string, Change[]>();
const formats = new Map<string, Intl.DateTimeFormat>();

/** The span that contains a time. */
export function spanAt(zone: string, moment: number): Span {
  const spans = spansOfYear(zone, new Date(moment).getUTCFullYear());
  // A year has one to five spans.
  return spans.findLast((span) => span.start <= moment)!;
}

function spansOfYear(zone: string, year: number): Span[] {
  const key = `${zone} ${year}`;
  const known = years.get(key);
  if (known) return known;
  const start = Date.UTC(year, 0, 1);
  const end = Date.UTC(year + 1, 0, 1);
  const changes = changesOfYear(zone, year);
  const last = changesOfYear(zone, year - 1).at(-1);
  const isChangedAtStart = changes[0]?.at === start;
  const within = isChangedAtStart ? changes.slice(1) : changes;
  const lastChange = isChangedAtStart ? changes[0] : last;
  const spans: Span[] = [
    {
      start,
      end: within[0]?.at ?? end,
      offset: offsetAt(zone, start),
      change: isChangedAtStart ? changes[0] : undefined,
      lastChange,
    },
    ...within.map((change, index) => ({
      start: change.at,
      end: within[index + 1]?.at ?? end,
      offset: change.after,
      change,
      lastChange: change,
    })),
  ];
  if (years.size >= yearsMax) years.clear();
  years.set(key, spans);
  return spans;
}

/** The changes from the year's first moment up to the next year's, exclusive. */
function changesOfYear(zone: string, year: number): Change[] {
  const key = `${zone} ${year}`;
  const known = changesOf.get(key);
  if (known) return known;
  const from = Date.UTC(year, 0, 1) - 1_000;
  const to = Date.UTC(year + 1, 0, 1) - 1_000;
  const changes: Change[] = [];
  let before = offsetAt(zone, from);
  for (let low = from; low < to; low += lookEveryMs) {
    const after = offsetAt(zone, low + lookEveryMs);
    if (after === before) continue;
    changes.push({ at: bisect(zone, low, low + lookEveryMs, before), before, after });
    before = after;
  }
  if (changesOf.size >= yearsMax) changesOf.clear();
  changesOf.set(key, changes);
  return changes;
}

/** The first whole second of (low, high] whose offset differs from `before`. */
function bisect(zone: string, low: number, high: number, before: number): number {
  let unchanged = low;
  let changed = high;
  while (changed - unchanged > 1_000) {
    const middle = unchanged + Math.floor((changed - unchanged) / 2_000) * 1_000;
    if (offsetAt(zone, middle) === before) unchanged = middle;
    else changed = middle;
  }
  return changed;
}

/**
 * The zone's offset from UTC at a time of whole seconds, in milliseconds; positive: ahead of UTC.
 */
function offsetAt(zone: string, moment: number): number {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    formats.set(zone, format);
  }
  // "3/29/2026, 03:00:00"
  const numbers = (format.format(moment).match(/\d+/g) ?? []).map(Number);
  const [month, day, year, hour, minute, second] = numbers as SixNumbers;
  return Date.UTC(year, month - 1, day, hour, minute, second) - moment;
}
