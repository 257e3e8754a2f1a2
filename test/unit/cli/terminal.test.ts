/** Texts of other authors, as printed to a terminal. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { forTerminal, TerminalText } from "../../../src/cli/print/terminal.ts";

const esc = "\u001b";

test.each([
  ["colours", `a${esc}[31mred${esc}[0m`, `a${esc}[31mred${esc}[0m`],
  ["a colour that is left on", `${esc}[1;38:5:9mx`, `${esc}[1;38:5:9mx${esc}[0m`],
  ["the clipboard (OSC 52)", `a${esc}]52;c;cm0gLXJm\u0007b`, "ab"],
  ["a title (OSC 0), ended by ST", `a${esc}]0;title${esc}\\b`, "ab"],
  ["a link (OSC 8)", `${esc}]8;;http://x${esc}\\text${esc}]8;;${esc}\\`, "text"],
  ["clearing", `a${esc}[2J${esc}[H${esc}cb`, "ab"],
  ["the cursor", `a${esc}[1A${esc}[10;10H${esc}[?25lb`, "ab"],
  ["questions of a terminal", `a${esc}[6n${esc}[cb`, "ab"],
  ["DCS, APC, PM, SOS", `a${esc}Pq${esc}\\${esc}_x${esc}\\${esc}^y${esc}\\${esc}Xz${esc}\\b`, "ab"],
  ["C1 controls of 8 bits", "a\u009b2Jb\u009d0;t\u0007c\u0090q\u009cd\u0085e", "abcde"],
  ["an 8-bit colour, in its 7-bit form", "\u009b31mx", `${esc}[31mx${esc}[0m`],
  ["a lone return", "good\rbad\r\nnext", "good\nbad\nnext"],
  ["bell, backspace, delete", "a\u0007b\bc\u007fd", "abcd"],
  ["bidirectional controls", "a\u202eb\u2066c\u200fd", "abcd"],
  ["tabs and lines", "a\tb\n", "a\tb\n"],
  ["a string without an end hides one line at most", `a${esc}]0;hidden\nb`, "a\nb"],
  ["a colour with something else in it", `${esc}[>4;2m${esc}[31 mx`, "x"],
  ["an escape within an escape", `${esc}${esc}[2J${esc}[${esc}[2Jx`, "x"],
  ["hidden text (SGR 8)", `${esc}[8mrm -rf /${esc}[0m`, `rm -rf /${esc}[0m`],
  [
    "hidden text beside colours",
    `${esc}[31;8;38;5;8;48;2;8;8;8;008mx${esc}[8:1my`,
    `${esc}[31;38;5;8;48;2;8;8;8mxy${esc}[0m`,
  ],
  ["other scripts and signs", "naïve 日本 😀 e\u0301", "naïve 日本 😀 e\u0301"],
])("%s", (_name, text, shown) => {
  expect(forTerminal(text)).toBe(shown);
});

test("however the bytes are cut, the same comes out, and never more than text and colours", () => {
  const pieces = fc.constantFrom(
    esc,
    "[",
    "]",
    "52;c;",
    "2J",
    "31m",
    "\\",
    "\u0007",
    "\u009b",
    "\u009d",
    "\r",
    "\n",
    "é😀",
    "a",
    "P",
    "0",
    "\u202e",
  );
  fc.assert(
    fc.property(
      fc.array(pieces, { maxLength: 30 }),
      fc.array(fc.nat(40), { maxLength: 5 }),
      (parts, cuts) => {
        const text = parts.join("");
        const whole = forTerminal(text);
        const bytes = Buffer.from(text);
        const stream = new TerminalText();
        let shown = "";
        const at = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
        for (let index = 1; index < at.length; index++)
          shown += stream.take(bytes.subarray(at[index - 1], at[index]));
        expect(shown + stream.end()).toBe(whole);
        const text2 = whole.replaceAll(new RegExp(`${esc}\\[[\\d;:]*m`, "g"), "");
        expect(
          [...text2].filter((character) => /(?![\n\t])[\p{Cc}\p{Bidi_Control}]/u.test(character)),
        ).toEqual([]);
      },
    ),
    { numRuns: 2_000 },
  );
});
