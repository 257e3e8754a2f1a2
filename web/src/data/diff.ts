/** Differences between two texts by lines, from their longest common subsequence. */

export type DiffLine = { kind: "same" | "gone" | "new"; text: string };

/** Maximum lines per text; the comparison table is quadratic. */
const linesMax = 1_200;

/** The lines of both texts in order; longer texts are cut, with a note in the last line. */
export function diffOf(before: string, after: string): DiffLine[] {
  const [a, b] = [before.split("\n"), after.split("\n")];
  const isCut = a.length > linesMax || b.length > linesMax;
  a.length = Math.min(a.length, linesMax);
  b.length = Math.min(b.length, linesMax);
  const wide = b.length + 1;
  const common = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i * wide + j] =
        a[i] === b[j]
          ? common[(i + 1) * wide + j + 1]! + 1
          : Math.max(common[(i + 1) * wide + j]!, common[i * wide + j + 1]!);
    }
  }
  const lines: DiffLine[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      lines.push({ kind: "same", text: a[i]! });
      i++;
      j++;
    } else if (j === b.length || (i < a.length && common[(i + 1) * wide + j]! >= common[i * wide + j + 1]!)) {
      lines.push({ kind: "gone", text: a[i++]! });
    } else {
      lines.push({ kind: "new", text: b[j++]! });
    }
  }
  if (isCut) lines.push({ kind: "same", text: `… only the first ${linesMax} lines were compared` });
  return lines;
}
