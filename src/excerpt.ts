/** The longest beginning of a text that is shown of it where only so much has room. */

/**
 * The text as PostgreSQL stores it in `text` and `jsonb` (no NUL, no half of a surrogate pair: both become U+FFFD), cut
 * to at most `lengthMax` UTF-16 units and marked with "…" if it is longer. No character is cut through.
 */
export function excerpt(text: string, lengthMax: number): string {
  const storable = text.toWellFormed().replaceAll("\0", "\u{fffd}");
  if (storable.length <= lengthMax) return storable;
  const isSplit = (storable.codePointAt(lengthMax - 1) ?? 0) > 0xffff;
  return `${storable.slice(0, isSplit ? lengthMax - 1 : lengthMax)}…`;
}
