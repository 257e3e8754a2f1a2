/**
 * The server's time, from the dates of answers: ages are right even if the computer's clock is
 * wrong.
 */
import { signal } from "@preact/signals";

const tickMs = 1_000;
/**
 * Differences below this are ignored, in ms: an HTTP date has whole seconds, and an answer takes
 * time.
 */
const toleranceMs = 2_500;

let offsetMs = 0;

/**
 * The server's time in ms since the epoch, updated every second. Components using the signal render
 * again each second.
 */
export const now = signal(Date.now());

export function startClock(): void {
  setInterval(() => {
    now.value = serverNow();
  }, tickMs);
}

export function serverNow(): number {
  return Date.now() + offsetMs;
}

/** Sets the clock by the date of a new answer. */
export function setClockBy(date: string | null): void {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  const distanceMs = at + 500 - Date.now();
  if (Math.abs(distanceMs - offsetMs) > toleranceMs) {
    offsetMs = Math.abs(distanceMs) > toleranceMs ? distanceMs : 0;
  }
}
