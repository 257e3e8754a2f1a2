import { durationMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import type { ExplainRunResponse, Run } from "#gen/pinion/v1/run_pb.js";
import { runs as api, explainError } from "../data/api.ts";
import { labelOf } from "../data/devices.ts";
import { createRunStream, followRun, isEnded, plain, type RunStream } from "../data/run-stream.ts";
import { confirm } from "../parts/dialog.tsx";
import { Empty } from "../parts/empty.tsx";
import { Status } from "../parts/status.tsx";
import { Ago } from "../parts/time.tsx";
import { bytesText, Timeline } from "../parts/timeline.tsx";
import { announce, attempt } from "../parts/toasts.tsx";
import { goTo, linkTo } from "../route.ts";
import { clockText, lengthText, momentText, msOf } from "../times.ts";
import { runWord, skipWord, sourceWord } from "../words.ts";

export function RunView({ id }: { id: string }) {
  const stream = useMemo(createRunStream, []);
  useEffect(() => {
    const left = new AbortController();
    void followRun(stream, id, left.signal);
    return () => left.abort();
  }, []);
  const run = stream.run.value;
  const word = run && runWord(run.status);
  useEffect(() => {
    if (run && word) announce(`Run of ${run.watcherSlug} is ${word}`);
  }, [word]);

  if (!run) {
    if (stream.error.value === "") return <p class="empty loading">Reading…</p>;
    return (
      <Empty title="This run cannot be shown">
        <p>{stream.error.value}</p>
        <a class="button" href={linkTo("runs")}>
          All runs
        </a>
      </Empty>
    );
  }
  return (
    <article class="run">
      <header>
        <div>
          <a class="back" href={linkTo("runs")}>
            Runs
          </a>
          <h1>
            {run.watcherSlug || "Run"} <Status word={word!} />
          </h1>
          <code>{run.id}</code>
        </div>
        <div class="buttons">
          {stream.isBroken.value && <span class="status bad">reconnecting</span>}
          {isEnded(run) ? (
            <button type="button" class="primary" onClick={() => retry(run)}>
              Retry
            </button>
          ) : (
            <button
              type="button"
              class="danger"
              disabled={run.cancelRequestedAt !== undefined}
              onClick={() => askCancel(run)}
            >
              {run.cancelRequestedAt ? "Cancelling…" : "Cancel"}
            </button>
          )}
        </div>
      </header>
      <Timeline run={run} bytes={stream.output.value.bytes} />
      <div class="panes">
        <OutputPane stream={stream} run={run} />
        <div class="side">
          <Explain run={run} />
          <Facts run={run} />
        </div>
      </div>
    </article>
  );
}

/** What the program writes, as it writes it; after the end, what was stored. Scrolls along for who is at the end. */
function OutputPane({ stream, run }: { stream: RunStream; run: Run }) {
  const output = stream.output.value;
  const stored = stream.stored.value;
  const box = useRef<HTMLPreElement>(null);
  const isAtEnd = useRef(true);
  useLayoutEffect(() => {
    if (box.current && isAtEnd.current && stored === undefined)
      box.current.scrollTop = box.current.scrollHeight;
  }, [output, stored]);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current!;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < 24;
  };
  const isLive = !isEnded(run);
  const showsLive = stored === undefined || (stored === "" && output.pieces.length > 0);
  const isBlank = showsLive ? output.pieces.length === 0 : stored === "";
  return (
    <section class="output" aria-label="Output">
      <h2>
        Output{" "}
        <small>
          {isLive ? "live" : run.windowId ? "as stored" : "the end that was kept"}
          {showsLive && output.bytes > 0 && ` · ${bytesText(output.bytes)}`}
          {showsLive && output.missed > 0 && ` · ${output.missed} pieces were not seen live`}
        </small>
      </h2>
      <pre
        ref={box}
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label="Output of the program"
        onScroll={onScroll}
      >
        {isBlank ? (
          <span class="muted">{isLive ? "Nothing written yet." : "It wrote nothing that was kept."}</span>
        ) : showsLive ? (
          <>
            {output.isCut && <span class="muted">… what came before is in the stored result{"\n"}</span>}
            {output.pieces.map((piece, index) => (
              <span key={index} class={piece.isError ? "stderr" : ""}>
                {piece.text}
              </span>
            ))}
          </>
        ) : (
          plain(stored!)
        )}
      </pre>
      {!showsLive && run.stderrTail !== "" && (
        <details>
          <summary>Standard error, its end</summary>
          <pre tabIndex={0}>{plain(run.stderrTail)}</pre>
        </details>
      )}
    </section>
  );
}

/** Why the run is where it is, as the server explains it; asked again when the run has moved on. */
function Explain({ run }: { run: Run }) {
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
                  <time>{fact.at ? clockText(msOf(fact.at)!) : "now"}</time> {fact.text}
                </li>
              ))}
            </ol>
          </details>
        </>
      )}
    </section>
  );
}

function Facts({ run }: { run: Run }) {
  const moment = (at: Parameters<typeof msOf>[0]) => at && momentText(msOf(at)!);
  const rows: [name: string, value: ComponentChildren][] = [
    ["reason", run.reason],
    ["skipped for", skipWord(run.skipReason)],
    [
      "device",
      run.deviceId ? (
        <a href={linkTo("fleet", "", { q: run.deviceId })}>{labelOf(run.deviceId)}</a>
      ) : (
        "any fleet worker"
      ),
    ],
    [
      "watcher",
      <a
        href={linkTo("runs", "", { watcher: run.watcherId })}
      >{`${run.watcherSlug} v${run.watcherVersion}`}</a>,
    ],
    ["agent", run.agentId && `${run.agentId} v${run.agentVersion}`],
    ["executor", run.agentKind && <code>{run.agentKind}</code>],
    ["source", sourceWord(run.source)],
    ["attempt", run.attempt > 0 && `${run.attempt} of ${run.maxAttempts}`],
    ["slot", moment(run.scheduledFor)],
    ["not before", moment(run.notBefore)],
    ["expires", moment(run.expiresAt)],
    ["last beat", run.lastBeatAt && !isEnded(run) && <Ago at={run.lastBeatAt} />],
    ["program ran", run.duration && lengthText(durationMs(run.duration))],
    ["timeout", run.timeout && lengthText(durationMs(run.timeout))],
    ["exit code", run.exitCode === undefined ? "" : String(run.exitCode)],
    ["signal", run.signal],
    ["window", run.windowStart && `${moment(run.windowStart)} to ${moment(run.windowEnd)}`],
    ["result", run.windowId && <code>{run.windowId}</code>],
    ["retry of", run.retryOf && <a href={linkTo("runs", run.retryOf)}>{run.retryOf.slice(-8)}</a>],
  ];
  return (
    <section aria-label="Details">
      <h2>Details</h2>
      <dl>
        {rows
          .filter(([, value]) => value)
          .map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
      </dl>
      {run.pastAttempts.length > 0 && (
        <>
          <h3>Attempts before this one</h3>
          <ol class="facts">
            {run.pastAttempts.map((past) => (
              <li key={past.attempt}>
                {past.attempt}: {past.isReported ? "reported" : "taken back"} {moment(past.endedAt)}:{" "}
                {past.reason}
              </li>
            ))}
          </ol>
        </>
      )}
    </section>
  );
}

function askCancel(run: Run): void {
  confirm({
    title: "Cancel this run?",
    text: `The device stops the program of ${run.watcherSlug}, and what it has done so far is not stored as a result.`,
    action: "Cancel the run",
    async act() {
      await api.cancelRun({ runId: run.id, reason: "cancelled on the web page" });
      return "Its end was asked for.";
    },
  });
}

async function retry(run: Run): Promise<void> {
  await attempt(async () => {
    const answer = await api.retryRun({ runId: run.id });
    if (answer.run) goTo("runs", answer.run.id);
    return "This is the new run.";
  });
}
