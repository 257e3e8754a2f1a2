/** Pieces of TOML as `pull` writes them. */

/** A string; one of several lines is written on several lines. */
export function tomlText(text: string): string {
  const isLong = text.includes("\n");
  const body = text
    .replaceAll("\\", "\\\\")
    // Within """ only three quotes in a row, or one at the end, would end it.
    .replace(isLong ? /"(?="")|"$/g : /"/g, '\\"')
    .replace(/(?!\n)\p{Cc}/gu, (character) => (isLong && character === "\t" ? "\t" : controlCode(character)));
  return isLong ? `"""\n${body}"""` : `"${body}"`;
}

function controlCode(character: string): string {
  if (character === "\t") return "\\t";
  if (character === "\r") return "\\r";
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** A list of strings: on one line if it fits there. */
export function tomlList(items: readonly string[]): string {
  const line = `[${items.join(", ")}]`;
  if (line.length <= listWidth && !line.includes("\n")) return line;
  return `[\n${items.map((item) => `  ${item},`).join("\n")}\n]`;
}

const listWidth = 90;

/** A JSON document, as it is where TOML can hold that, so that people can edit it. */
export function tomlJson(value: unknown): string {
  const text = JSON.stringify(value, null, 2);
  return /'''|(?!\n)\p{Cc}/u.test(text) ? tomlText(text) : `'''\n${text}'''`;
}

/** Text of other people as a comment: on one line, without control characters. */
export function tomlComment(text: string): string {
  return `# ${text.replace(/\p{Cc}+/gu, " ")}`;
}
