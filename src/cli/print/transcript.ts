import { type Activity, ToolStatus, type Transcript } from "#gen/pinion/v1/activity_pb.js";
import type { Cli } from "../cli.ts";
import { plain, plainLines } from "./table.ts";
import { cut } from "./width.ts";

/** An agent's activities as lines for people. */

const titleLength = 100;

const marks: Record<ToolStatus, string> = {
  [ToolStatus.UNSPECIFIED]: "·",
  [ToolStatus.PENDING]: "…",
  [ToolStatus.RUNNING]: "▸",
  [ToolStatus.COMPLETED]: "✓",
  [ToolStatus.FAILED]: "✗",
  [ToolStatus.DENIED]: "⊘",
};

/** The line of an activity; undefined for activities not shown. */
export function activityLine(cli: Cli, { body }: Activity): string | undefined {
  const { dim, cyan, red, yellow } = cli.colors;
  switch (body.case) {
    case "text":
      return plainLines(body.value.text);
    case "thinking":
      return dim(plainLines(body.value.text));
    case "toolCall": {
      const { name, title, status, input } = body.value;
      const paint = status === ToolStatus.FAILED || status === ToolStatus.DENIED ? red : cyan;
      const what = plain(title || name);
      const given = title === "" && input !== "" ? ` ${dim(cut(plain(input), titleLength))}` : "";
      return `${paint(marks[status] ?? "·")} ${cut(what, titleLength)}${given}`;
    }
    case "plan":
      return body.value.steps.map((step) => dim(`  - ${plain(step.text)}`)).join("\n");
    case "question": {
      const { title, answer, isDefault } = body.value;
      return yellow(
        `? ${plain(title)}${answer ? ` → ${plain(answer)}${isDefault ? " (default)" : ""}` : ""}`,
      );
    }
    case "note":
      return yellow(`! ${plain(body.value.text)}`);
    default:
      return undefined;
  }
}

/** The lines of a transcript, with a note for omitted entries. */
export function transcriptLines(cli: Cli, transcript: Transcript): string[] {
  const lines: string[] = [];
  let before = 0n;
  for (const entry of transcript.entries) {
    const isGap =
      transcript.omittedEntries > 0n && before > 0n && entry.sequence > before + transcript.omittedEntries;
    if (isGap) lines.push(cli.colors.dim(`… ${transcript.omittedEntries} entries are left out here`));
    before = entry.sequence;
    const line = activityLine(cli, entry);
    if (line !== undefined) lines.push(line);
  }
  return lines;
}
