/**
 * The width of texts on a terminal: marks and invisible characters take no cell, wide ones take
 * two.
 */
import { stripVTControlCharacters } from "node:util";

/**
 * Made at the first text that needs it: the tables of Unicode take 8 ms to load, and few texts need
 * them.
 */
let segmenter: Intl.Segmenter | undefined;
const simple = /^[\x20-\x7e]*$/;
const invisible = /^[\p{Cc}\p{M}\p{Default_Ignorable_Code_Point}]*$/u;
/** A lone emoji with its own picture, one that asks for it (U+FE0F), and flags. */
const pictures = /\p{Emoji_Presentation}|\p{Extended_Pictographic}\ufe0f|\p{RI}\p{RI}/u;
/** East Asian Wide and Fullwidth of Unicode, without emoji. */
const wide =
  /^[\u1100-\u115f\u2329\u232a\u2e80-\u303e\u3041-\u3247\u3250-\u4dbf\u4e00-\ua4c6\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{18cff}\u{1b000}-\u{1b2fb}\u{1f200}-\u{1f265}\u{20000}-\u{3fffd}]/u;

function graphemes(text: string): Intl.Segments {
  segmenter ??= new Intl.Segmenter("en", { granularity: "grapheme" });
  return segmenter.segment(text);
}

function cellsOf(character: string): number {
  if (invisible.test(character)) return 0;
  return wide.test(character) || pictures.test(character) ? 2 : 1;
}

/** The cells that a text takes on the screen, without its colours. */
export function displayWidth(text: string): number {
  const shown = stripVTControlCharacters(text);
  if (simple.test(shown)) return shown.length;
  let width = 0;
  for (const { segment } of graphemes(shown)) width += cellsOf(segment);
  return width;
}

/** Cuts a text without colours to a width; a cut text ends with "…". */
export function cut(text: string, widthMax: number): string {
  if (displayWidth(text) <= widthMax) return text;
  let kept = "";
  let left = widthMax - 1;
  for (const { segment } of graphemes(text)) {
    left -= cellsOf(segment);
    if (left < 0) break;
    kept += segment;
  }
  return `${kept}…`;
}

/** The text with spaces up to a width. */
export function padded(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - displayWidth(text)));
}
