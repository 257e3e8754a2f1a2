import { dayMs, hourMs, minuteMs, secondMs } from "../../print/lengths.ts";

/** A duration in the file's notation: "24h", "1h30m", "0s". Equal durations give equal texts. */
export function lengthText(ms: number): string {
  if (ms === 0) return "0s";
  let rest = ms;
  let text = "";
  // A single day is written as 24 hours.
  const units: [size: number, name: string][] = [
    [ms >= 2 * dayMs ? dayMs : Number.POSITIVE_INFINITY, "d"],
    [hourMs, "h"],
    [minuteMs, "m"],
    [secondMs, "s"],
    [1, "ms"],
  ];
  for (const [size, name] of units) {
    const count = Math.floor(rest / size);
    if (count === 0) continue;
    text += `${count}${name}`;
    rest -= count * size;
  }
  return text;
}
