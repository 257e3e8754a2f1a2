/** The result of a run: the answer, its data, the agent's activities, and the program's output. */
import type { JsonValue } from "@bufbuild/protobuf";
import { useSignal } from "@preact/signals";
import type { Run } from "#gen/pinion/v1/run_pb.js";
import { isEnded, type RunStream } from "../../data/run-stream.ts";
import { ActivityList } from "../../parts/activity.tsx";
import { Copy } from "../../parts/copy.tsx";
import { DataTree } from "../../parts/data-tree.tsx";
import { Markdown } from "../../parts/markdown.tsx";
import { attentionWord } from "../../words.ts";
import { OutputPane } from "./output.tsx";

export function Result({ stream, run }: { stream: RunStream; run: Run }) {
  const { answer, structured } = stream.result.value;
  const entries = stream.activities.value;
  const hasAgent = answer !== "" || structured !== undefined || entries.length > 0;
  const isDataAlone = structured !== undefined && isSameData(answer, structured);
  const isRaw = useSignal(false);
  if (!hasAgent) {
    return (
      <div class="found">
        <Attention run={run} />
        <OutputPane stream={stream} run={run} />
      </div>
    );
  }
  return (
    <div class="found">
      <Attention run={run} />
      {answer !== "" && !isDataAlone && (
        <section class="answer" aria-label="Answer">
          <h2>
            Answer <Copy text={answer} what="the answer" />
          </h2>
          <Markdown text={answer} />
        </section>
      )}
      {structured !== undefined && <Data value={structured} fileName={`${run.id}.json`} />}
      {entries.length > 0 && (
        <section class="steps" aria-label="What the agent did">
          <h2>
            What it did <small>{isEnded(run) ? `${entries.length} steps` : "live"}</small>
          </h2>
          <ActivityList entries={entries} isLive={!isEnded(run)} />
          {stream.omitted.value > 0n && (
            <p class="muted">{String(stream.omitted.value)} steps were left out of the middle.</p>
          )}
        </section>
      )}
      <button
        type="button"
        class="quiet"
        aria-expanded={isRaw.value}
        onClick={() => (isRaw.value = !isRaw.value)}
      >
        {isRaw.value ? "Hide what it printed" : "Show what it printed"}
      </button>
      {isRaw.value && <OutputPane stream={stream} run={run} />}
    </div>
  );
}

function Data({ value, fileName }: { value: JsonValue; fileName: string }) {
  const text = JSON.stringify(value, null, 2);
  return (
    <section class="data" aria-label="Data">
      <h2>
        Data <Copy text={text} what="the data" />
        <a download={fileName} href={`data:application/json;charset=utf-8,${encodeURIComponent(text)}`}>
          Download
        </a>
      </h2>
      <DataTree value={value} name="Data" />
    </section>
  );
}

/**
 * True if a text is the JSON of a value, in any order of keys: the page then shows only the value.
 */
function isSameData(text: string, value: unknown): boolean {
  try {
    return inOrder(JSON.parse(text)) === inOrder(value);
  } catch {
    return false;
  }
}

/** JSON with sorted keys. */
function inOrder(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

function Attention({ run }: { run: Run }) {
  if (run.attention.length === 0 && run.notes.length === 0) return null;
  return (
    <section class="attention" aria-label="What to look at">
      {run.attention.length > 0 && (
        <p>
          <b>Look at this:</b> {run.attention.map(attentionWord).join(", ")}
        </p>
      )}
      {run.denials.map((denial, index) => (
        <p key={index}>
          Not permitted: <code>{denial.tool}</code> {denial.input && <code>{denial.input}</code>}{" "}
          {denial.reason}
        </p>
      ))}
      {run.notes.map((note) => (
        <p key={note} class="muted">
          {note}
        </p>
      ))}
    </section>
  );
}
