/**
 * Texts of agents in a destination's format. Markdown is cheap to write and may be costly to read:
 * of 32,000 characters a formatter can make half a minute, or overflow the stack.
 */
import { BoundedWork } from "../../time/bounded.ts";

/**
 * Milliseconds to format a text; an ordinary one of full length takes 30, the first of a replica
 * 60.
 */
const formatMsMax = 200;
const triesMax = 5;
const formatting = new BoundedWork({
  triesMs: Array.from({ length: triesMax }, () => formatMsMax),
  // 100 ms of the processor.
  lateShare: 0.5,
  slowMax: 200,
});

/** The text by `format`; by `plain`, if `format` fails or takes too long. */
export function formatted<T>(
  text: string,
  { format, plain }: Record<"format" | "plain", (text: string) => T>,
): T {
  if (formatting.isSlow(text)) return plain(text);
  try {
    const found = formatting.try(() => format(text));
    if (typeof found === "object") return found.value;
  } catch {
    // Nested more deeply than the stack: as slow as the rest, and sent in any case.
  }
  // Also if a busy machine kept all tries waiting: they took a second of the replica.
  formatting.noteSlow(text);
  return plain(text);
}
