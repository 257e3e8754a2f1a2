export const secondMs = 1000;
export const minuteMs = 60 * secondMs;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

/** Formats a duration: "41 ms", "3.2 s", "4 m 10 s", "2 h 5 m", "3 d 4 h". */
export function formatLength(ms: number): string {
  if (ms < 0) return `-${formatLength(-ms)}`;
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  if (ms < secondMs) return `${Math.round(ms)} ms`;
  if (ms < minuteMs) {
    const seconds = ms / secondMs;
    // 9.96 s would print as "10.0".
    return seconds < 9.95 ? `${Number(seconds.toFixed(1))} s` : `${Math.floor(seconds)} s`;
  }
  if (ms < hourMs) return pair(ms, minuteMs, "m", secondMs, "s");
  if (ms < dayMs) return pair(ms, hourMs, "h", minuteMs, "m");
  return pair(ms, dayMs, "d", hourMs, "h");
}

function pair(ms: number, largeMs: number, large: string, smallMs: number, small: string): string {
  const whole = Math.floor(ms / largeMs);
  const rest = Math.floor((ms % largeMs) / smallMs);
  return rest === 0 ? `${whole} ${large}` : `${whole} ${large} ${rest} ${small}`;
}
