/** Maximum edit distance of a suggestion: typing errors change, drop or add one or two letters. */
const typoDistanceMax = 2;

/** The known name closest to `name`, for "did you mean". */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const normal = name.toLowerCase().replaceAll("-", "_");
  return known
    .map((candidate) => ({ candidate, distance: editDistance(normal, candidate) }))
    .filter(({ candidate, distance }) => distance <= Math.min(typoDistanceMax, candidate.length / 2))
    .sort((a, b) => a.distance - b.distance)[0]?.candidate;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
