import { useMemo } from "preact/hooks";
import { type DiffLine, diffOf } from "../data/diff.ts";

const signs: Record<DiffLine["kind"], string> = { same: " ", gone: "−", new: "+" };
const spoken: Record<DiffLine["kind"], string> = { same: "", gone: "removed: ", new: "added: " };

/** Two texts as one, with removed and added lines. */
export function Diff(props: { before: string; after: string; label: string }) {
  const lines = useMemo(() => diffOf(props.before, props.after), [props.before, props.after]);
  if (lines.every(({ kind }) => kind === "same")) return <p class="muted">Nothing differs.</p>;
  return (
    <pre class="diff" role="region" aria-label={props.label} tabIndex={0}>
      {lines.map((line, index) => (
        <span key={index} class={line.kind}>
          <b aria-hidden="true">{signs[line.kind]}</b>
          <i class="unseen">{spoken[line.kind]}</i>
          {line.text}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}
