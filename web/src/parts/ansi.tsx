/** Text of a program, with the colours that it meant for a terminal. Everything else of a terminal's language is left out. */
import { AnsiUp } from "ansi_up";

/** Colours are classes: the page's policy knows no inline style. */
const ansi = new AnsiUp();
ansi.use_classes = true;
ansi.url_allowlist = {};

export function Ansi({ text }: { text: string }) {
  if (!text.includes("\u001b")) return <>{text}</>;
  // ansi_up escapes the text, and is asked for nothing but spans with classes; the page's policy holds it besides.
  return <span dangerouslySetInnerHTML={{ __html: ansi.ansi_to_html(text) }} />;
}
