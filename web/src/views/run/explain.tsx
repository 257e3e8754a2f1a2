import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { ExplainRunResponse, Run } from "#gen/pinion/v1/run_pb.js";
import { runs as api, explainError } from "../../data/api.ts";
import { clockText, msOf } from "../../times.ts";

/** The server's explanation of the run's state; read again after a change of the run. */
export function Explain({ run }: { run: Run }) {
  const answer = useSignal<ExplainRunResponse | undefined>(undefined);
  const askedAt = useSignal(0);
  const error = useSignal("");
  const ask = async () => {
    try {
      answer.value = await api.explainRun({ runId: run.id });
      askedAt.value = Date.now();
      error.value = "";
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  useEffect(() => void ask(), [run.status, run.attempt, run.cancelRequestedAt === undefined]);
  const { value } = answer;
  return (
    <section class="explain" aria-label="Explanation" aria-live="polite">
      <h2>
        Why is it where it is?
        <button type="button" class="quiet" onClick={ask}>
          Explain again
        </button>
      </h2>
      {error.value && <p class="error">{error.value}</p>}
      {value && (
        <>
          <p>{value.summary}</p>
          {value.nextStep && <p class="next">{value.nextStep}</p>}
          <details>
            <summary>
              {value.facts.length} facts, as of {clockText(askedAt.value).slice(0, 8)}
            </summary>
            <ol class="facts">
              {value.facts.map((fact, index) => (
                <li key={index}>
                  <time>{fact.at ? clockText(msOf(fact.at)) : "now"}</time> {fact.text}
                </li>
              ))}
            </ol>
          </details>
        </>
      )}
    </section>
  );
}
