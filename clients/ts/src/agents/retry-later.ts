/** Delay after a rate limit without a stated end, in ms. */
const RATE_LIMIT_RETRY_MS = 60_000;
/** Delay after an overloaded provider's error, in ms. */
const OVERLOADED_RETRY_MS = 60_000;
/** Delay after a usage limit without a stated end, in ms. */
const USAGE_LIMIT_RETRY_MS = 30 * 60_000;
/** Maximum delay taken from an agent, in ms. */
const RETRY_MS_MAX = 7 * 24 * 3_600_000;

const UNITS_MS: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/**
 * Delay in ms before a retry of an agent at a limit, from the agent's own text; undefined if the
 * text names no temporary limit.
 */
export function retryAfterOf(
  words: { text: string; status?: number | undefined },
  nowMs = Date.now(),
): number | undefined {
  const { text, status } = words;
  const isUsageLimit = /usage limit|out of credits|quota exceeded|insufficient_quota|hit your limit/i.test(
    text,
  );
  const isRateLimit =
    status === 429 ||
    /\b429\b|rate.?limit|too many requests|exceeded retry limit/i.test(text) ||
    isUsageLimit;
  const isOverloaded =
    status === 529 || status === 503 || /\b529\b|overloaded|\b503\b.*unavailable/i.test(text);
  if (!isRateLimit && !isOverloaded) return undefined;
  const said = statedMs(text, nowMs);
  if (said !== undefined) return Math.min(RETRY_MS_MAX, Math.max(1_000, said));
  if (isUsageLimit) return USAGE_LIMIT_RETRY_MS;
  return isRateLimit ? RATE_LIMIT_RETRY_MS : OVERLOADED_RETRY_MS;
}

/** Delay in ms until the time stated in a text, or the stated duration. */
function statedMs(text: string, nowMs: number): number | undefined {
  return epochMs(text, nowMs) ?? dateMs(text, nowMs) ?? lengthMs(text) ?? clockMs(text, nowMs);
}

/** Words before a moment. */
const BEFORE = String.raw`(?:\b(?:at|until|after|on|resets?|reset[-_ ]?(?:s_)?(?:at|time)|retry[-_ ]after|available)\b["']?\s*[:=]?\s*["']?)`;

/**
 * "usage limit reached|1789000000", `"resets_at":1789000000`: seconds or milliseconds since 1970.
 */
function epochMs(text: string, nowMs: number): number | undefined {
  const found = new RegExp(String.raw`(?:\||${BEFORE})(\d{10})(\d{3})?(?!\d)`, "i").exec(text);
  if (found?.[1] === undefined) return undefined;
  return Number(found[1]) * 1000 + Number(found[2] ?? 0) - nowMs;
}

/** ISO 8601 with an offset, or HTTP's format. */
function dateMs(text: string, nowMs: number): number | undefined {
  const iso = String.raw`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?\s?(?:Z|UTC|GMT|[+-]\d\d:?\d\d)`;
  const http = String.raw`(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT`;
  const found = new RegExp(`${BEFORE}(${iso}|${http})`, "i").exec(text)?.[1];
  if (found === undefined) return undefined;
  const moment = Date.parse(found.replace(/\s?UTC$/i, "Z"));
  return Number.isFinite(moment) ? moment - nowMs : undefined;
}

/** "try again in 2 days 3 hours", "retry after 1.5s", "Retry-After: 30" (seconds). */
function lengthMs(text: string): number | undefined {
  const after =
    /(?:try again|retry|wait|available|resets?)(?:[-_ ]after|\s+in|\s+for)?["']?\s*[:=]?\s*((?:\d+(?:\.\d+)?\s*(?:ms|d|h|m|s)[a-z]*[\s,]*(?:and\s+)?)+)/i.exec(
      text,
    );
  if (after?.[1] !== undefined && !/^\d+\s*(?:am|pm)\b/i.test(after[1])) {
    let ms = 0;
    for (const [, count, unit] of after[1].matchAll(/(\d+(?:\.\d+)?)\s*(ms|mil|mon|d|h|m|s)/gi)) {
      const name = unit?.toLowerCase() ?? "";
      ms += Number(count) * (name === "ms" || name === "mil" ? 1 : (UNITS_MS[name] ?? 0));
    }
    if (ms > 0) return ms;
  }
  const seconds = /retry[-_ ]after["']?\s*[:=]?\s*["']?(\d{1,9}(?:\.\d+)?)(?![\d:.])/i.exec(text);
  return seconds?.[1] === undefined ? undefined : Number(seconds[1]) * 1000;
}

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAY_MS = 24 * 3_600_000;
/** A stated time of day that has passed by less than this is now, and not tomorrow. */
const JUST_PASSED_MS = 10 * 60_000;

/**
 * A time of day: "resets 3pm (Europe/Berlin)", "resets Oct 9, 3:30pm", "try again at 15:00 UTC".
 * The zone is the device's without a named zone; the day is the next one with this time.
 */
function clockMs(text: string, nowMs: number): number | undefined {
  const date = String.raw`(?:(?<month>[A-Z][a-z]{2})[a-z]*\.? (?<day>\d{1,2})(?:st|nd|rd|th)?,?(?: (?<year>\d{4}),?)?(?: at)? )?`;
  const time = String.raw`(?<hour>\d{1,2})(?::(?<minute>\d\d)(?::\d\d)?)?\s?(?<half>[ap]\.?m\.?)?`;
  const zone = String.raw`(?:\s?\(?(?<zone>[A-Z][A-Za-z_]+(?:\/[A-Za-z_+\-0-9]+){0,2})\)?)?`;
  const words = String.raw`\b(?:at|until|resets?|available)\s+(?:on\s+|at\s+)?`;
  const groups = new RegExp(words + date + time + zone, "i").exec(text)?.groups;
  if (groups === undefined) return undefined;
  const { month, day, year, half } = groups;
  if (half === undefined && groups.minute === undefined) return undefined;
  const hour = Number(groups.hour);
  const minute = Number(groups.minute ?? 0);
  if (hour > 23 || minute > 59 || (half !== undefined && (hour < 1 || hour > 12))) return undefined;
  const hourOfDay = half === undefined ? hour : (hour % 12) + (/^p/i.test(half) ? 12 : 0);
  const zoneName = zoneOf(groups.zone);
  const today = wallOf(nowMs, zoneName);
  if (month !== undefined) {
    const index = MONTHS.indexOf(month.toLowerCase());
    if (index < 0) return undefined;
    const moment = momentOf([Number(year ?? today.year), index, Number(day)], hourOfDay, minute, zoneName);
    const isPast = moment < nowMs - DAY_MS;
    // In December a date in January is the next year's.
    if (!isPast || year !== undefined) return moment - nowMs;
    return momentOf([today.year + 1, index, Number(day)], hourOfDay, minute, zoneName) - nowMs;
  }
  for (const days of [0, 1, 2]) {
    const moment = momentOf([today.year, today.month, today.day + days], hourOfDay, minute, zoneName);
    if (moment > nowMs - JUST_PASSED_MS) return moment - nowMs;
  }
  return undefined;
}

/** Undefined, the device's own zone, for a word that names no zone. */
function zoneOf(word: string | undefined): string | undefined {
  if (word === undefined) return undefined;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: word }).resolvedOptions().timeZone;
  } catch {
    return undefined;
  }
}

interface Wall {
  year: number;
  /** From 0. */
  month: number;
  day: number;
  hour: number;
  minute: number;
}

function wallOf(ms: number, timeZone: string | undefined): Wall {
  const format = new Intl.DateTimeFormat("en-US", {
    ...{ year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric" },
    hourCycle: "h23",
    ...(timeZone === undefined ? {} : { timeZone }),
  });
  const parts = new Map(format.formatToParts(ms).map(({ type, value }) => [type as string, Number(value)]));
  const part = (name: string) => parts.get(name) ?? 0;
  return {
    ...{ year: part("year"), month: part("month") - 1, day: part("day") },
    ...{ hour: part("hour"), minute: part("minute") },
  };
}

/**
 * The moment with a wall time in a zone; in the gap of a clock change, the moment after the gap.
 */
function momentOf(
  [year, month, day]: [number, number, number],
  hour: number,
  minute: number,
  timeZone: string | undefined,
): number {
  const wanted = Date.UTC(year, month, day, hour, minute);
  let moment = wanted;
  for (let tries = 0; tries < 3; tries++) {
    const wall = wallOf(moment, timeZone);
    const off = wanted - Date.UTC(wall.year, wall.month, wall.day, wall.hour, wall.minute);
    if (off === 0) break;
    moment += off;
  }
  return moment;
}
