/** What an agent says in a turn: as it comes, and at its end. */

import { OutputStream } from "#gen/pinion/v1/run_pb.js";
import type { TurnRow } from "../../store/work/turns/turns.ts";
import type { Feed } from "../cluster/feed.ts";
import { activityOf, activityStream } from "../device/messages/activity.ts";

export type SpeechFeed = Pick<Feed, "watchWork">;

/** Maximum characters kept of a reply under way; its end shows the whole. */
const speechMax = 100_000;
/** Maximum messages of one reply; a longer reply is cut, with a link. */
const partsMax = 10;

/**
 * Listens to a turn. Texts of the agent's activity are what it says; a program without activities
 * says its output, unless that is JSON for its executor.
 */
export function createSpeech(
  feed: SpeechFeed,
  turn: { orgId: string; turnId: string },
  on: { change(): void; text(): void },
) {
  let attempt = 0;
  let output = "";
  let texts = new Map<string, string>();
  const decoder = new TextDecoder();
  const close = feed.watchWork(
    { orgId: turn.orgId, workId: turn.turnId },
    {
      onChange: on.change,
      onOutput(chunk) {
        if (chunk.attempt !== attempt) {
          attempt = chunk.attempt;
          output = "";
          texts = new Map();
        }
        if (chunk.stream === activityStream) {
          const body = activityOf(chunk.data)?.body;
          if (body?.case !== "text") return;
          const key = body.value.messageId || `whole ${texts.size}`;
          texts.set(key, ((texts.get(key) ?? "") + body.value.text).slice(0, speechMax));
        } else if (chunk.stream === OutputStream.STDOUT) {
          output = (output + decoder.decode(chunk.data, { stream: true })).slice(0, speechMax);
        }
        on.text();
      },
    },
  );
  return {
    text(): string {
      if (texts.size > 0) return [...texts.values()].join("\n\n").trim();
      return /^\s*[[{]/.test(output) ? "" : output.trim();
    },
    close,
  };
}

/** The terminal reply to a turn, as people read it. */
export function finalText(turn: Pick<TurnRow, "status" | "reply" | "reason" | "isRetryable">): string {
  if (turn.status === "completed") return turn.reply.trim() || "(The agent said nothing.)";
  const again = turn.isRetryable ? " You may send it again." : "";
  const why = turn.reason ? `: ${turn.reason}` : "";
  if (turn.status === "cancelled") return `Cancelled${why}.`;
  return `There is no answer${why}.${again}`;
}

/** The text in messages of at most `max` characters, cut between lines where there are any. */
export function partsOf(text: string, max: number, publicUrl?: string, most = partsMax): string[] {
  const parts: string[] = [];
  let left = text;
  while (left.length > max && parts.length < most - 1) {
    const window = left.slice(0, max);
    const line = window.lastIndexOf("\n");
    const space = window.lastIndexOf(" ");
    let at = line > max / 2 ? line : space > max / 2 ? space : max;
    // No character is cut through.
    if ((left.codePointAt(at - 1) ?? 0) > 0xffff) at -= 1;
    parts.push(left.slice(0, at).trimEnd());
    left = left.slice(at).trimStart();
  }
  if (left.length > max) {
    const where = publicUrl ? `: ${publicUrl}` : "";
    const note = `\n\n… cut; the whole is in Pinion${where}`;
    left = `${left.slice(0, max - note.length).toWellFormed()}${note}`;
  }
  return [...parts, left];
}
