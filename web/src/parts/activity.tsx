/** The activities of an agent: a line for each step, tool calls folded. */
import type { ComponentChildren } from "preact";
import { type Activity, ToolStatus } from "#gen/pinion/v1/activity_pb.js";

const toolWords: Record<ToolStatus, string> = {
  [ToolStatus.UNSPECIFIED]: "",
  [ToolStatus.PENDING]: "announced",
  [ToolStatus.RUNNING]: "running",
  [ToolStatus.COMPLETED]: "done",
  [ToolStatus.FAILED]: "failed",
  [ToolStatus.DENIED]: "denied",
};

export function ActivityList({ entries, isLive }: { entries: readonly Activity[]; isLive: boolean }) {
  return (
    <ol class="activity" aria-label="What the agent does" aria-live={isLive ? "polite" : "off"}>
      {entries.map((entry) => (
        <li key={keyOf(entry)} class={entry.body.case}>
          <Entry entry={entry} />
        </li>
      ))}
    </ol>
  );
}

function keyOf({ sequence, body }: Activity): string {
  return body.case === "toolCall" ? body.value.id : String(sequence);
}

function Entry({ entry: { body } }: { entry: Activity }): ComponentChildren {
  switch (body.case) {
    case "text":
      return <p>{body.value.text}</p>;
    case "thinking":
      return <p class="muted">{body.value.text}</p>;
    case "toolCall": {
      const { name, title, status, input, result, isInputTruncated, isResultTruncated } = body.value;
      const word = toolWords[status] ?? "";
      return (
        <details>
          <summary>
            <b>{title || name}</b> <span class={`tool ${word}`}>{word}</span>
          </summary>
          {input && (
            <pre>
              {input}
              {isInputTruncated && " …"}
            </pre>
          )}
          {result && (
            <pre>
              {result}
              {isResultTruncated && " …"}
            </pre>
          )}
        </details>
      );
    }
    case "plan":
      return (
        <ul>
          {body.value.steps.map((step, index) => (
            <li key={index}>{step.text}</li>
          ))}
        </ul>
      );
    case "question":
      return (
        <p>
          Asked: {body.value.title} {body.value.answer && <b>{body.value.answer}</b>}
          {body.value.isDefault && " (the default)"}
        </p>
      );
    case "note":
      return <p class="note">{body.value.text}</p>;
    default:
      return null;
  }
}
