/** A program's text with its terminal colours, without other terminal sequences. */
import { AnsiUp } from "ansi_up";

/** Colours as classes: the page's policy forbids inline styles. */
const ansi = new AnsiUp();
ansi.use_classes = true;
ansi.url_allowlist = {};

/**
 * `isAfterReturn`: the piece before ended with a carriage return, for a text that comes in pieces.
 */
export function Ansi({ text: written, isAfterReturn = false }: { text: string; isAfterReturn?: boolean }) {
  const text = withReturns(written, isAfterReturn);
  if (!text.includes("\u001b")) return <>{text}</>;
  // ansi_up escapes the text and emits only spans with classes; the page's policy is a second
  // barrier.
  return <span dangerouslySetInnerHTML={{ __html: ansi.ansi_to_html(text) }} />;
}

/**
 * A lone carriage return becomes a line break, as in the command: a browser shows nothing for it,
 * and the states of a progress bar would stand in one word.
 */
function withReturns(text: string, isAfterReturn: boolean): string {
  const lines = text.replace(/\r(?=[^\n\r])/g, "\n");
  return isAfterReturn && !/^[\r\n]/.test(lines) ? `\n${lines}` : lines;
}
