import { parseDurationMs } from "./quantities.ts";

/** The exit code by which a program says "not now, try again later": EX_TEMPFAIL of sysexits.h. */
export const EXIT_TEMPFAIL = 75;
/** How long after one that does not say when, in ms. */
const UNSAID_MS = 5 * 60_000;
/** What the protocol takes, in ms. */
const RETRY_AFTER_MS_MAX = 7 * 24 * 3_600_000;

/**
 * How long from now until another try, in ms, from what a program says: seconds (as HTTP's Retry-After), a length of time
 * ("90s", "2h"), or a moment (ISO 8601, or HTTP's). Text that says nothing of the kind is a problem, for people.
 */
export function retryAfterOf(text: string | undefined, nowMs: number): { ms: number; problem?: string } {
  if (text === undefined || text === "") return { ms: UNSAID_MS };
  const within = (ms: number) => ({ ms: Math.min(RETRY_AFTER_MS_MAX, Math.max(0, Math.round(ms))) });
  if (/^\d+(\.\d+)?$/.test(text)) return within(Number(text) * 1_000);
  const length = parseDurationMs(text);
  if (length !== undefined) return within(length);
  // Date.parse by itself makes a year of "-5".
  const moment = /^(\d{4}-\d\d-\d\d|[A-Z][a-z]{2}, \d)/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isFinite(moment)) return within(moment - nowMs);
  return {
    ms: UNSAID_MS,
    problem: `PINION_RETRY_AFTER_FILE holds "${text.slice(0, 40)}", which is no length of time and no moment`,
  };
}
