import { type Duration, durationMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { timerMsMax } from "../../time/abort.ts";
import { exitCodes, Failure } from "../failures.ts";
import { dayMs, formatLength, hourMs, minuteMs, secondMs } from "./lengths.ts";

/** A protobuf duration for people; "" if absent. */
export function formatDuration(duration: Duration | undefined): string {
  return duration ? formatLength(durationMs(duration)) : "";
}

/** Distance of a time from now, in its largest unit: "3 m ago", "in 2 h", "now". "" if absent. */
export function formatAgo(at: Timestamp | undefined, now: number = Date.now()): string {
  if (!at) return "";
  const distance = timestampDate(at).getTime() - now;
  const size = Math.abs(distance);
  if (size < secondMs) return "now";
  const text =
    size < minuteMs
      ? `${Math.floor(size / secondMs)} s`
      : size < hourMs
        ? `${Math.floor(size / minuteMs)} m`
        : size < 2 * dayMs
          ? `${Math.floor(size / hourMs)} h`
          : `${Math.floor(size / dayMs)} d`;
  return distance < 0 ? `${text} ago` : `in ${text}`;
}

/** A time in the local zone, "2026-03-01 09:00:00"; "" if absent. */
export function formatMoment(at: Timestamp | undefined, timeZone?: string): string {
  if (!at) return "";
  const parts = new Intl.DateTimeFormat("en-GB", {
    timeZone,
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
  }).formatToParts(timestampDate(at));
  const part = (type: string) => parts.find((candidate) => candidate.type === type)?.value ?? "";
  return `${part("year")}-${part("month")}-${part("day")} ${part("hour")}:${part("minute")}:${part("second")}`;
}

/** A time with its distance from now, "2026-03-01 09:00:00 (3 m ago)"; "" if absent. */
export function formatMomentAgo(at: Timestamp | undefined, now: number = Date.now()): string {
  return at ? `${formatMoment(at)} (${formatAgo(at, now)})` : "";
}

const units: Record<string, number> = {
  ms: 1,
  s: secondMs,
  m: minuteMs,
  min: minuteMs,
  h: hourMs,
  d: dayMs,
  w: 7 * dayMs,
};

/** A hundred years: beyond, moments leave the years that messages can hold. */
const lengthMsMax = 36_500 * dayMs;

/**
 * Parses "90s", "1h30m", "500ms", "2d" to ms. Throws for other text; `name` is the option's, for
 * the message.
 */
export function parseLength(text: string, name: string): number {
  const compact = text.replace(/\s+/g, "").toLowerCase();
  const pieces = [...compact.matchAll(/(\d+(?:\.\d+)?)(ms|min|s|m|h|d|w)/g)];
  if (compact === "" || pieces.map((piece) => piece[0]).join("") !== compact) {
    throw new Failure(
      exitCodes.usage,
      `${name}: "${text}" is no length of time`,
      "write it like 90s, 15m, 1h30m or 2d",
    );
  }
  const ms = Math.round(
    pieces.reduce((sum, [, count, unit = ""]) => sum + Number(count) * (units[unit] ?? 0), 0),
  );
  if (ms <= lengthMsMax) return ms;
  throw new Failure(exitCodes.usage, `${name}: "${text}" is longer than ${lengthMsMax / dayMs} days`);
}

/** Like {@link parseLength}, for a wait: at most the 24 days that a timer of Node can wait for. */
export function parseWait(text: string, name: string): number {
  return Math.min(parseLength(text, name), timerMsMax);
}

/**
 * Parses a time: "now", an ISO time ("2026-03-01", "2026-03-01T09:00Z"; local without a zone), or a
 * duration before now.
 */
export function parseMoment(text: string, name: string, now: number = Date.now()): Date {
  if (text === "now") return new Date(now);
  if (/^\d{4}-\d{2}-\d{2}/.test(text)) {
    // A bare date is midnight in the local zone; JavaScript would parse UTC.
    const date = new Date(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00` : text.replace(" ", "T"));
    if (!Number.isNaN(date.getTime())) return date;
  } else if (/^\d+(\.\d+)?\s*(ms|min|[smhdw])/.test(text)) {
    return new Date(now - parseLength(text, name));
  }
  throw new Failure(
    exitCodes.usage,
    `${name}: "${text}" is no moment`,
    "write it like 2026-03-01, 2026-03-01T09:00Z, now, or 2d (two days ago)",
  );
}
