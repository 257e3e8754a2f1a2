/**
 * Texts of agents in a destination's format. Markdown is cheap to write and may be costly to read: of
 * 32,000 characters a formatter can make half a minute, or overflow the stack.
 */
import { inTime } from "../../time/bounded.ts";

/** Milliseconds to format a text; an ordinary one of full length takes 30, the first of a replica 60. */
const formatMsMax = 200;
/** A text is too slow if it used the processor for this part of the time: 100 ms. */
const lateShare = 0.5;
/** Maximum tries on a machine that is busy with other processes. */
const triesMax = 5;
/** Texts remembered as too slow: a later try of their messages does not take the time again. */
const slowTextsMax = 200;
const slowTexts = new Set<string>();

/** The text by `format`; by `plain`, if `format` fails or takes too long. */
export function formatted<T>(
  text: string,
  { format, plain }: Record<"format" | "plain", (text: string) => T>,
): T {
  if (slowTexts.has(text)) return plain(text);
  try {
    for (let tries = 0; tries < triesMax; tries++) {
      const found = inTime(formatMsMax, () => format(text), lateShare);
      if (typeof found === "object") return found.value;
      if (found === "late") break;
    }
  } catch {
    // Nested more deeply than the stack: as slow as the rest, and sent in any case.
  }
  noteSlow(text);
  return plain(text);
}

function noteSlow(text: string): void {
  const [oldest] = slowTexts;
  if (slowTexts.size >= slowTextsMax && oldest !== undefined) slowTexts.delete(oldest);
  slowTexts.add(text);
}
