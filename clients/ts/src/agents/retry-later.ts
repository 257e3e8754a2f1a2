/** Delay after a rate limit without a stated end, in ms. */
export const RATE_LIMIT_RETRY_MS = 60_000;
/** Delay after an overloaded provider's error, in ms. */
export const OVERLOADED_RETRY_MS = 60_000;
/** Delay after a usage limit without a stated end, in ms. */
export const USAGE_LIMIT_RETRY_MS = 30 * 60_000;
/** Maximum delay taken from an agent, in ms. */
export const RETRY_MS_MAX = 7 * 24 * 3_600_000;

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
  // "Claude AI usage limit reached|1789000000"
  const epoch = /\|(\d{10})(\d{3})?\b/.exec(text);
  if (epoch !== null) return Number(epoch[1]) * 1000 - nowMs;
  const iso = /\b(?:at|until|after|resets?)\s+(\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:?\d\d))/i.exec(text);
  if (iso?.[1] !== undefined && Number.isFinite(Date.parse(iso[1]))) return Date.parse(iso[1]) - nowMs;
  // "try again in 2 days 3 hours 5 minutes", "retry after 1.5s", "Please try again in 30 seconds"
  const after =
    /(?:try again|retry|wait|available|resets?)\s*(?:in|after|for)?:?\s*((?:\d+(?:\.\d+)?\s*(?:d|h|m|s)[a-z]*[\s,]*(?:and\s+)?)+)/i.exec(
      text,
    );
  if (after?.[1] !== undefined) {
    let ms = 0;
    for (const [, count, unit] of after[1].matchAll(/(\d+(?:\.\d+)?)\s*(d|h|ms|m|s)/gi)) {
      ms += Number(count) * (unit?.toLowerCase() === "ms" ? 1 : (UNITS_MS[unit?.toLowerCase() ?? ""] ?? 0));
    }
    if (ms > 0) return ms;
  }
  const seconds = /retry[-_ ]after["':\s]+(\d+(?:\.\d+)?)\b/i.exec(text);
  if (seconds?.[1] !== undefined) return Number(seconds[1]) * 1000;
  return undefined;
}
