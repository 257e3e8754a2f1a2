/** A program's text with its terminal colours, without other terminal sequences. */
import { AnsiUp } from "ansi_up";

/** Colours as classes: the page's policy forbids inline styles. */
const ansi = new AnsiUp();
ansi.use_classes = true;
ansi.url_allowlist = {};

export function Ansi({ text }: { text: string }) {
  if (!text.includes("\u001b")) return <>{text}</>;
  // ansi_up escapes the text and emits only spans with classes; the page's policy is a second
  // barrier.
  return <span dangerouslySetInnerHTML={{ __html: ansi.ansi_to_html(text) }} />;
}
