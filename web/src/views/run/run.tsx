import { useEffect, useMemo } from "preact/hooks";
import type { Run } from "#gen/pinion/v1/run_pb.js";
import { runs as api } from "../../data/api.ts";
import { createRunStream, followRun, hearLateResults, isEnded } from "../../data/run-stream.ts";
import { confirm } from "../../parts/dialog.tsx";
import { Empty } from "../../parts/empty.tsx";
import { Status } from "../../parts/status.tsx";
import { Timeline } from "../../parts/timeline.tsx";
import { announce, attempt } from "../../parts/toasts.tsx";
import { goTo, linkTo } from "../../route.ts";
import { runWord } from "../../words.ts";
import { Explain } from "./explain.tsx";
import { Facts } from "./facts.tsx";
import { FollowUp } from "./follow-up.tsx";
import { LateResults } from "./late.tsx";
import { Questions } from "./questions.tsx";
import { Result } from "./result.tsx";

export function RunView({ id }: { id: string }) {
  const stream = useMemo(createRunStream, []);
  useEffect(() => {
    const left = new AbortController();
    void followRun(stream, id, left.signal);
    return () => left.abort();
  }, []);
  useEffect(() => hearLateResults(stream, id), []);
  const run = stream.run.value;
  const news = stream.lateNews.value;
  useEffect(() => {
    if (news === 0 || !run || !isEnded(run)) return;
    const left = new AbortController();
    void followRun(stream, id, left.signal);
    return () => left.abort();
  }, [news]);
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
      <Head run={run} isBroken={stream.isBroken.value} />
      <Questions of={{ runId: run.id }} openQuestions={run.openQuestions} />
      <div class="panes">
        <div class="found">
          <Result stream={stream} run={run} />
          <LateResults run={run} news={news} />
          {isEnded(run) && run.sessionId !== "" && <FollowUp run={run} />}
        </div>
        <div class="side">
          <Explain run={run} />
          <Facts run={run} />
        </div>
      </div>
      <Timeline run={run} bytes={stream.output.value.bytes} />
    </article>
  );
}

function Head({ run, isBroken }: { run: Run; isBroken: boolean }) {
  return (
    <header>
      <div>
        <a class="back" href={linkTo("runs")}>
          Runs
        </a>
        <h1>
          {run.watcherSlug || "Run"} <Status word={runWord(run.status)} />
        </h1>
        <code>{run.id}</code>
      </div>
      <div class="buttons">
        {isBroken && <span class="status bad">reconnecting</span>}
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
