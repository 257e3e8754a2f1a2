/**
 * Adapts texts from programs for PostgreSQL, which accepts no NUL, and in jsonb no half of a
 * surrogate pair.
 */

/** The value as JSON for jsonb; NULs and half pairs become U+FFFD. */
export function storableJson(value: unknown): string {
  return JSON.stringify(value).replace(/\\\\|\\u(?:0000|d[89a-f][0-9a-f]{2})/g, (found) =>
    found === "\\\\" ? found : "\\ufffd",
  );
}

/** The text; NULs become U+FFFD. */
export function storableText(text: string): string {
  return text.includes("\0") ? text.replaceAll("\0", "\u{fffd}") : text;
}
