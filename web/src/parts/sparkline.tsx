import { durationMs } from "@bufbuild/protobuf/wkt";
import { RunStatus, type RunSummary } from "#gen/pinion/v1/run_pb.js";
import { lengthText } from "../times.ts";
import { runWord, toneOf } from "../words.ts";

const runsMax = 30;
const [barWidth, gap, height, least] = [4, 2, 24, 3];

/**
 * The last runs as bars, oldest first: the colour shows the outcome, the height the duration
 * (logarithmic).
 */
export function Sparkline({ runs }: { runs: readonly RunSummary[] }) {
  const bars = runs.slice(0, runsMax).reverse();
  const longest = Math.max(1, ...bars.map(tookMs));
  const first = runsMax - bars.length;
  return (
    <svg
      class="spark"
      width={runsMax * (barWidth + gap)}
      height={height}
      viewBox={`0 0 ${runsMax * (barWidth + gap)} ${height}`}
      role="img"
      aria-label={summaryOf(bars)}
    >
      <title>{summaryOf(bars)}</title>
      {bars.map((run, index) => {
        const share = Math.log1p(tookMs(run)) / Math.log1p(longest);
        const isSkipped = run.status === RunStatus.SKIPPED;
        const tall = isSkipped ? least : Math.max(least + 1, Math.round(share * height));
        return (
          <rect
            key={run.id}
            class={toneOf(runWord(run.status))}
            x={(first + index) * (barWidth + gap)}
            y={height - tall}
            width={barWidth}
            height={tall}
            rx="1"
          />
        );
      })}
    </svg>
  );
}

const tookMs = (run: RunSummary) => (run.duration ? Math.max(1, durationMs(run.duration)) : 0);

function summaryOf(bars: readonly RunSummary[]): string {
  if (bars.length === 0) return "No run yet";
  const counts = Map.groupBy(bars, (run) => runWord(run.status));
  const words = [...counts].map(([name, of]) => `${of.length} ${name}`);
  const longest = Math.max(...bars.map(tookMs));
  const took = longest > 0 ? `; longest ${lengthText(longest)}` : "";
  return `Last ${bars.length} ${bars.length === 1 ? "run" : "runs"}: ${words.join(", ")}${took}`;
}
