/** The beginning or the end of a text, for places with little room. */

/**
 * The text in the form that PostgreSQL stores in `text` and `jsonb`: a NUL and half of a surrogate
 * pair become U+FFFD. A longer text is cut to `lengthMax` UTF-16 units, between two characters, and
 * marked with "…".
 */
export function excerpt(text: string, lengthMax: number): string {
  const storable = text.toWellFormed().replaceAll("\0", "\u{fffd}");
  if (storable.length <= lengthMax) return storable;
  const isSplit = (storable.codePointAt(lengthMax - 1) ?? 0) > 0xffff;
  return `${storable.slice(0, isSplit ? lengthMax - 1 : lengthMax)}…`;
}

/**
 * The last characters of a text, at most `lengthMax` UTF-16 units, in the form of {@link excerpt}.
 */
export function ending(text: string, lengthMax: number): string {
  const end = text.slice(-lengthMax);
  const isSplit = end.length < text.length && /^[\udc00-\udfff]/.test(end);
  return excerpt(isSplit ? end.slice(1) : end, lengthMax);
}
