import { parseDurationMs } from "./quantities.ts";

/** Exit code for "not now, try again later": EX_TEMPFAIL of sysexits.h. */
export const EXIT_TEMPFAIL = 75;
/** Delay in ms for a program without a stated time. */
const UNSAID_MS = 5 * 60_000;
/** The protocol's maximum, in ms. */
const RETRY_AFTER_MS_MAX = 7 * 24 * 3_600_000;

/**
 * Delay in ms until another try, from a program's text: seconds (as in HTTP's Retry-After), a
 * duration ("90s", "2h"), or a time (ISO 8601, or HTTP's format). Other text gives the default
 * delay and a problem for people.
 */
export function retryAfterOf(text: string | undefined, nowMs: number): { ms: number; problem?: string } {
  if (text === undefined || text === "") return { ms: UNSAID_MS };
  const within = (ms: number) => ({ ms: Math.min(RETRY_AFTER_MS_MAX, Math.max(0, Math.round(ms))) });
  if (/^\d+(\.\d+)?$/.test(text)) return within(Number(text) * 1_000);
  const length = parseDurationMs(text);
  if (length !== undefined) return within(length);
  // Date.parse alone would parse "-5" as a year.
  const moment = /^(\d{4}-\d\d-\d\d|[A-Z][a-z]{2}, \d)/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isFinite(moment)) return within(moment - nowMs);
  return {
    ms: UNSAID_MS,
    problem: `PINION_RETRY_AFTER_FILE holds "${text.slice(0, 40)}", which is no length of time and no moment`,
  };
}
