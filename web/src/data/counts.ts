/** Counts of run outcomes over time, for bars. */
import { durationFromMs, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { RunStatus, type SummarizeRunsResponse } from "#gen/pinion/v1/run_pb.js";
import type { Bar } from "../parts/bars.tsx";
import { dayMs, hourMs, slotText } from "../times.ts";
import { runWord, toneOf } from "../words.ts";
import { runs } from "./api.ts";
import { now } from "./clock.ts";

export type Range = { name: string; label: string; lengthMs: number; spanMs: number };

export const ranges: readonly Range[] = [
  { name: "day", label: "24 hours", lengthMs: dayMs, spanMs: hourMs },
  { name: "week", label: "7 days", lengthMs: 7 * dayMs, spanMs: 6 * hourMs },
  { name: "month", label: "30 days", lengthMs: 30 * dayMs, spanMs: dayMs },
];

export const rangeNamed = (name: string | null) => ranges.find((range) => range.name === name) ?? ranges[0]!;

/** Counts up to the end of the current span, so bars keep their positions over time. */
export function countRuns(
  range: Range,
  of: { watcherId?: string; deviceId?: string },
  signal: AbortSignal,
): Promise<SummarizeRunsResponse> {
  const endMs = Math.ceil(now.peek() / range.spanMs) * range.spanMs;
  return runs.summarizeRuns(
    {
      ...of,
      start: timestampFromMs(endMs - range.lengthMs),
      end: timestampFromMs(endMs),
      span: durationFromMs(range.spanMs),
    },
    { signal },
  );
}

const order = [
  RunStatus.COMPLETED,
  RunStatus.FAILED,
  RunStatus.TIMEOUT,
  RunStatus.CANCELLED,
  RunStatus.SKIPPED,
];

export function barsOf(range: Range, { counts, start, end }: SummarizeRunsResponse): Bar[] {
  const bySpan = Map.groupBy(counts, (count) => timestampMs(count.start!));
  const bars: Bar[] = [];
  for (let at = timestampMs(start!); at < timestampMs(end!); at += range.spanMs) {
    const parts = (bySpan.get(at) ?? [])
      .toSorted((a, b) => order.indexOf(a.status) - order.indexOf(b.status))
      .map(({ status, runs }) => ({
        name: runWord(status),
        tone: toneOf(runWord(status)),
        value: Number(runs),
      }));
    bars.push({ key: String(at), label: slotText(at), parts });
  }
  return bars;
}

export function totalsOf({ counts }: SummarizeRunsResponse): { name: string; runs: number }[] {
  return order.flatMap((status) => {
    const runs = counts
      .filter((count) => count.status === status)
      .reduce((sum, count) => sum + Number(count.runs), 0);
    return runs === 0 ? [] : [{ name: runWord(status), runs }];
  });
}
