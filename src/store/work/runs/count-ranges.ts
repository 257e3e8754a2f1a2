/**
 * Which ends of a time are counted one by one, and which are in sums of past days: hours and
 * minutes for spans, whole days for devices (service/past-days.ts).
 */

export const minuteMs = 60_000;
export const dayMs = 86_400_000;

/** Ends from `from`, before `to`, in ms, that are counted one by one. */
export type Range = { from: number; to: number; ofSpans: boolean; ofDevices: boolean };

export type CountParts = {
  rows: Range[];
  /** Days (UTC) with sums, by their beginning in ms; within them the sums of whole days. */
  days: number[];
  wholeDays: number[];
};

/**
 * The parts of the spans of `spanMs` from `start` on, before `end`. `counted`: the days with sums.
 */
export function countParts(
  { start, end, spanMs }: { start: number; end: number; spanMs: number },
  counted: ReadonlySet<number>,
): CountParts {
  const parts: CountParts = { rows: [], days: [], wholeDays: [] };
  for (let day = Math.floor(start / dayMs) * dayMs; day < end; day += dayMs) {
    const from = Math.max(start, day);
    const to = Math.min(end, day + dayMs);
    if (!counted.has(day)) {
      const last = parts.rows.at(-1);
      if (last?.ofSpans && last.ofDevices && last.to === from) last.to = to;
      else parts.rows.push({ from, to, ofSpans: true, ofDevices: true });
      continue;
    }
    parts.days.push(day);
    if (to - from === dayMs) parts.wholeDays.push(day);
    else parts.rows.push({ from, to, ofSpans: false, ofDevices: true });
    parts.rows.push(...cutMinutes({ start, end, spanMs }, { from, to }));
  }
  return parts;
}

/** The parts of minutes that a span begins or ends in. */
function cutMinutes(
  { start, end, spanMs }: { start: number; end: number; spanMs: number },
  within: { from: number; to: number },
): Range[] {
  const cut = new Set<number>();
  const note = (at: number) => {
    if (at % minuteMs !== 0) cut.add(Math.floor(at / minuteMs) * minuteMs);
  };
  const first = Math.ceil((within.from - start) / spanMs);
  for (let at = start + first * spanMs; at < within.to; at += spanMs) note(at);
  if (end === within.to) note(end);
  return [...cut].map((minute) => ({
    from: Math.max(within.from, minute),
    to: Math.min(within.to, minute + minuteMs),
    ofSpans: true,
    ofDevices: false,
  }));
}
