/** Formats TOML values for `pull`. */

/** A TOML string; a text with line breaks becomes a multi-line string. */
export function tomlText(text: string): string {
  const isLong = text.includes("\n");
  const body = text
    .replaceAll("\\", "\\\\")
    // Inside """ only three quotes in a row, or a quote at the end, would close the string.
    .replace(isLong ? /"(?="")|"$/g : /"/g, '\\"')
    .replace(/(?!\n)\p{Cc}/gu, (character) => (isLong && character === "\t" ? "\t" : controlCode(character)));
  return isLong ? `"""\n${body}"""` : `"${body}"`;
}

function controlCode(character: string): string {
  if (character === "\t") return "\\t";
  if (character === "\r") return "\\r";
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A list of strings, on one line if short enough. */
export function tomlList(items: readonly string[]): string {
  const line = `[${items.join(", ")}]`;
  if (line.length <= listWidth && !line.includes("\n")) return line;
  return `[\n${items.map((item) => `  ${item},`).join("\n")}\n]`;
}

const listWidth = 90;

/** A JSON document, unescaped if TOML allows, so people can edit the text. */
export function tomlJson(value: unknown): string {
  const text = JSON.stringify(value, null, 2);
  return /'''|(?!\n)\p{Cc}/u.test(text) ? tomlText(text) : `'''\n${text}'''`;
}

/** Foreign text as a comment: on one line, without control characters. */
export function tomlComment(text: string): string {
  return `# ${text.replace(/\p{Cc}+/gu, " ")}`;
}
