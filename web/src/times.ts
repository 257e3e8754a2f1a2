/** Formats for times and durations. */
import {
  type Duration,
  durationFromMs,
  durationMs,
  type Timestamp,
  timestampMs,
} from "@bufbuild/protobuf/wkt";

export const secondMs = 1_000;
export const minuteMs = 60 * secondMs;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

export function msOf(at: Timestamp): number;
export function msOf(at: Timestamp | undefined): number | undefined;
export function msOf(at: Timestamp | undefined): number | undefined {
  return at ? timestampMs(at) : undefined;
}

/** Formats a duration in ms: "12 ms", "3.4 s", "2 m 05 s", "1 h 12 m", "3 d 4 h". */
export function lengthText(ms: number): string {
  if (ms < 0) return "0 ms";
  if (ms < secondMs) return `${Math.round(ms)} ms`;
  if (ms < 10 * secondMs) return `${(ms / secondMs).toFixed(1)} s`;
  if (ms < minuteMs) return `${Math.floor(ms / secondMs)} s`;
  if (ms < hourMs) return pair(ms, minuteMs, "m", secondMs, "s");
  if (ms < dayMs) return pair(ms, hourMs, "h", minuteMs, "m");
  return pair(ms, dayMs, "d", hourMs, "h");
}

function pair(ms: number, large: number, largeName: string, small: number, smallName: string): string {
  const rest = Math.floor((ms % large) / small);
  const text = `${Math.floor(ms / large)} ${largeName}`;
  return rest === 0 ? text : `${text} ${String(rest).padStart(2, "0")} ${smallName}`;
}

/** Distance in its largest unit: "3 m ago", "in 2 h", "now". */
export function agoText(atMs: number, nowMs: number): string {
  const size = Math.abs(atMs - nowMs);
  if (size < 1.5 * secondMs) return "now";
  const text =
    size < minuteMs
      ? `${Math.floor(size / secondMs)} s`
      : size < hourMs
        ? `${Math.floor(size / minuteMs)} m`
        : size < 2 * dayMs
          ? `${Math.floor(size / hourMs)} h`
          : `${Math.floor(size / dayMs)} d`;
  return atMs < nowMs ? `${text} ago` : `in ${text}`;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function format(key: string, options: Intl.DateTimeFormatOptions, timeZone?: string): Intl.DateTimeFormat {
  const name = `${key} ${timeZone ?? ""}`;
  let found = formats.get(name);
  if (!found) {
    found = new Intl.DateTimeFormat("en-GB", {
      ...options,
      hourCycle: "h23",
      ...(timeZone ? { timeZone } : {}),
    });
    formats.set(name, found);
  }
  return found;
}

const day = { weekday: "short", day: "numeric", month: "short" } as const;
const clock = { hour: "2-digit", minute: "2-digit" } as const;

/** Formats a time: "Mon 3 Mar 09:00", in the viewer's zone or another. */
export function slotText(atMs: number, timeZone?: string): string {
  return format("slot", { ...day, ...clock }, timeZone)
    .format(atMs)
    .replaceAll(",", "");
}

/** Formats a time in a zone as "Mon 09:00", for use beside the full time in another zone. */
export function slotThereText(atMs: number, timeZone: string): string {
  return format("there", { weekday: "short", ...clock }, timeZone)
    .format(atMs)
    .replaceAll(",", "");
}

/** Formats a time as "09:00:03.120". */
export function clockText(atMs: number): string {
  const options = { ...clock, second: "2-digit", fractionalSecondDigits: 3 } as const;
  return format("clock", options).format(atMs);
}

/** Formats a time as "Mon 3 Mar 2026 09:00:03" with the zone's name. */
export function momentText(atMs: number): string {
  const options = { ...day, year: "numeric", ...clock, second: "2-digit", timeZoneName: "short" } as const;
  return format("moment", options).format(atMs).replaceAll(",", "");
}

export const viewerZone = zoneOr(new Intl.DateTimeFormat().resolvedOptions().timeZone, "UTC");

/** Browsers return nothing, or Etc/Unknown, for a system zone without a known name. */
function zoneOr(zone: string | undefined, otherwise: string): string {
  return zone === undefined || zone === "Etc/Unknown" ? otherwise : zone;
}

/** True if two zones have the same local time at a moment. */
export function isSameClock(atMs: number, zone: string): boolean {
  return slotText(atMs) === slotText(atMs, zone);
}

const units: Record<string, number> = { s: secondMs, m: minuteMs, min: minuteMs, h: hourMs, d: dayMs };

/** Parses "90s", "15m", "1h30m" or "2d"; undefined for "", null for other text. */
export function parseLength(text: string): Duration | undefined | null {
  const compact = text.replace(/\s+/g, "").toLowerCase();
  if (compact === "") return undefined;
  const pieces = [...compact.matchAll(/(\d+(?:\.\d+)?)(min|s|m|h|d)/g)];
  if (pieces.map(([piece]) => piece).join("") !== compact) return null;
  return durationFromMs(
    Math.round(pieces.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit!]!, 0)),
  );
}

/** The inverse of `parseLength`. */
export function lengthInput(duration: Duration | undefined): string {
  let ms = duration ? durationMs(duration) : 0;
  let text = "";
  for (const [unit, size] of [
    ["d", dayMs],
    ["h", hourMs],
    ["m", minuteMs],
  ] as const) {
    if (ms >= size) text += `${Math.floor(ms / size)}${unit}`;
    ms %= size;
  }
  return ms > 0 ? `${text}${ms / secondMs}s` : text;
}
