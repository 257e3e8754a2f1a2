/**
 * The filter for foreign text on a terminal: output of programs, names, labels, reasons and error
 * messages of servers. Colours (SGR) pass. Sequences for moving the cursor, clearing, titles, the
 * clipboard, links, reports and hidden text do not pass:
 *
 *   ESC [ … m                      passes with digits, ";" and ":" only; without "conceal" (8)
 *   other CSI, two-byte escapes    dropped
 *   OSC, DCS, APC, PM, SOS         dropped up to their end, and to the end of the line at most
 *   C1 controls (8 bit)            treated as their two-byte forms
 *   a lone CR                      becomes a line break, so no text is written over
 *   BEL, BS, DEL, other controls   dropped, except tabs and line breaks
 *   bidirectional controls         dropped, so the reading order is the stored order
 */
import { StringDecoder } from "node:string_decoder";

type State = "text" | "escape" | "csi" | "string" | "string escape";

/** Maximum characters of a control sequence; colours have far fewer. */
const csiCharactersMax = 64;
const strings = new Set(["]", "P", "X", "^", "_"]);
const bidi = /\p{Bidi_Control}/u;
const isControl = (code: number) => code < 0x20 || (code >= 0x7f && code < 0xa0);

/** Filters a stream of text or UTF-8, for any division into pieces. */
export class TerminalText {
  readonly #decoder = new StringDecoder("utf8");
  #state: State = "text";
  #csi = "";
  #hasReturn = false;
  #isColoured = false;

  take(piece: Uint8Array | string): string {
    const text = typeof piece === "string" ? piece : this.#decoder.write(Buffer.from(piece));
    let shown = "";
    for (const character of text) shown += this.#step(character);
    return shown;
  }

  /** The reset code, if the text has left a colour on. */
  end(): string {
    return this.#isColoured ? "\u001b[0m" : "";
  }

  #step(character: string): string {
    const code = character.codePointAt(0)!;
    switch (this.#state) {
      case "text":
        return this.#text(character, code);
      case "escape":
        if (character === "[") return this.#begin("csi");
        if (strings.has(character)) return this.#begin("string");
        // Intermediate bytes: the final byte follows.
        if (code >= 0x20 && code <= 0x2f) return "";
        this.#state = "text";
        return isControl(code) ? this.#text(character, code) : "";
      case "csi":
        return this.#control(character, code);
      case "string":
        if (character === "\u0007" || code === 0x9c) this.#state = "text";
        else if (character === "\u001b") this.#state = "string escape";
        else if (character === "\n") {
          this.#state = "text";
          return "\n";
        }
        return "";
      case "string escape":
        this.#state = "escape";
        return character === "\\" ? this.#begin("text") : this.#step(character);
    }
  }

  #begin(state: State): string {
    this.#state = state;
    this.#csi = "";
    return "";
  }

  #control(character: string, code: number): string {
    if (code >= 0x20 && code <= 0x3f && this.#csi.length < csiCharactersMax) {
      this.#csi += character;
      return "";
    }
    const parameters = this.#csi;
    this.#begin("text");
    if (code < 0x40 || code > 0x7e) return isControl(code) ? this.#text(character, code) : "";
    if (character !== "m" || !/^[\d;:]*$/.test(parameters)) return "";
    const seen = withoutConceal(parameters);
    if (seen === undefined) return "";
    this.#isColoured = !/^0*$/.test(seen);
    return `\u001b[${seen}m`;
  }

  #text(character: string, code: number): string {
    const before = this.#hasReturn && character !== "\n" ? "\n" : "";
    this.#hasReturn = character === "\r";
    if (character === "\n" || character === "\t") return before + character;
    if (character === "\u001b") return before + this.#begin("escape");
    if (code === 0x9b) return before + this.#begin("csi");
    if ([0x90, 0x98, 0x9d, 0x9e, 0x9f].includes(code)) return before + this.#begin("string");
    if (isControl(code) || bidi.test(character)) return before;
    return before + character;
  }
}

/** The number of parameters of a colour by its kind, after 38, 48 or 58. */
const colourParameters: Record<string, number | undefined> = { "2": 4, "5": 2 };

/** The parameters of SGR without the one that hides text; undefined if none is left. */
function withoutConceal(parameters: string): string | undefined {
  const given = parameters.split(";");
  const left: string[] = [];
  for (let at = 0; at < given.length; at++) {
    const parameter = given[at] ?? "";
    if (/^[345]8$/.test(parameter)) {
      // The 8 in "38;5;8" is a colour.
      const count = 1 + (colourParameters[given[at + 1] ?? ""] ?? 0);
      left.push(...given.slice(at, at + count));
      at += count - 1;
    } else if (!/^0*8(?::|$)/.test(parameter)) left.push(parameter);
  }
  return left.length === 0 ? undefined : left.join(";");
}

/** Filters a whole text for a terminal. */
export function forTerminal(text: string): string {
  const harmless = new TerminalText();
  const shown = harmless.take(text);
  return shown + harmless.end();
}
