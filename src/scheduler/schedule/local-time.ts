import { Mistake } from "./mistake.ts";
import { spanAt } from "./offsets.ts";

/** Times written by people: a local time of a zone, or a time with its offset from UTC. */

const pattern = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.0+)?)?)?\s*(Z|[+-]\d\d:?\d\d)?$/i;

/** The text has the shape of a moment. */
export function isMoment(text: string): boolean {
  return /^\d{4}-\d\d-\d\d/.test(text);
}

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
  const [y, mo, d, h, mi, s] = [year, month, day, hour, minute, second ?? "0"].map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
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
