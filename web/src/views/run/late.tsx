/** Late results, stored after their attempts had been taken away, beside the run's own. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { LateResult, Run } from "#gen/pinion/v1/run_pb.js";
import { runs as api } from "../../data/api.ts";
import { labelOf } from "../../data/devices.ts";
import { isEnded } from "../../data/run-stream.ts";
import { dataText } from "../../data/windows.ts";
import { Ansi } from "../../parts/ansi.tsx";
import { Markdown } from "../../parts/markdown.tsx";
import { momentText, msOf } from "../../times.ts";
import { runWord } from "../../words.ts";

/** `news`: changes when the run may have got another late result. */
export function LateResults({ run, news }: { run: Run; news: number }) {
  const late = useSignal<readonly LateResult[]>([]);
  useEffect(() => {
    // Late results exist only for runs with earlier attempts, or for ended runs.
    if (run.pastAttempts.length === 0 && !isEnded(run)) return;
    api.getRun({ runId: run.id }).then(
      ({ lateResults }) => {
        late.value = lateResults;
      },
      () => {},
    );
  }, [run.id, run.status, run.attempt, news]);
  const shown = late.value.filter(({ hasSettled }) => !hasSettled);
  if (shown.length === 0) return null;
  return (
    <section class="late" aria-label="Late results">
      <h2>Late results</h2>
      <p class="muted">
        They came after their attempts had been taken away, and are not the run's own result.
      </p>
      {shown.map((result) => (
        <details key={result.attempt}>
          <summary>
            Attempt {result.attempt}, {runWord(result.outcome)} on {labelOf(result.deviceId)},{" "}
            {result.storedAt && momentText(msOf(result.storedAt))}
          </summary>
          {result.reason && <p>{result.reason}</p>}
          {result.result ? (
            <Markdown text={result.result} />
          ) : (
            <pre tabIndex={0}>
              <Ansi text={result.output || dataText(result.structured)} />
            </pre>
          )}
          {result.isOutputTruncated && <p class="muted">There was more.</p>}
        </details>
      ))}
    </section>
  );
}
