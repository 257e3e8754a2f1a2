/** The server's time, as far as an answer's date tells it: ages are right on a computer whose clock is not. */
import { signal } from "@preact/signals";

const tickMs = 1_000;
/** A date of HTTP is cut to the second, and an answer takes a while: less than this is no difference. */
const toleranceMs = 2_500;

let offsetMs = 0;

/** Milliseconds since the epoch, by the second. Whoever reads it is drawn again each second. */
export const now = signal(Date.now());

export function startClock(): void {
  setInterval(() => {
    now.value = serverNow();
  }, tickMs);
}

export function serverNow(): number {
  return Date.now() + offsetMs;
}

/** Takes the date of an answer that has just come. */
export function setClockBy(date: string | null): void {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  const distanceMs = at + 500 - Date.now();
  if (Math.abs(distanceMs - offsetMs) > toleranceMs) {
    offsetMs = Math.abs(distanceMs) > toleranceMs ? distanceMs : 0;
  }
}
