/**
 * Whether a version is newer than another, by the order of semantic versions: numbers first; a
 * version with a suffix ("1.2.0-rc.1") comes before the version without. False for a text without
 * three numbers.
 */
export function isNewer(candidate: string, than: string): boolean {
  const [a, b] = [parsed(candidate), parsed(than)];
  if (!a || !b) return false;
  for (const [place, number] of a.numbers.entries()) {
    const other = b.numbers[place] ?? 0;
    if (number !== other) return number > other;
  }
  if (a.suffix === "" || b.suffix === "") return a.suffix === "" && b.suffix !== "";
  return compareSuffixes(a.suffix, b.suffix) > 0;
}

function parsed(version: string): { numbers: number[]; suffix: string } | undefined {
  const found = /^v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$/.exec(
    version,
  );
  if (!found) return undefined;
  return { numbers: found.slice(1, 4).map(Number), suffix: found[4] ?? "" };
}

/** By the rule of semantic versions: numbers before words, fewer parts before more. */
function compareSuffixes(a: string, b: string): number {
  const [left, right] = [a.split("."), b.split(".")];
  for (let place = 0; place < Math.max(left.length, right.length); place++) {
    const [one, other] = [left[place], right[place]];
    if (one === other) continue;
    if (one === undefined) return -1;
    if (other === undefined) return 1;
    const [isNumber, isOther] = [/^\d+$/.test(one), /^\d+$/.test(other)];
    if (isNumber && isOther) return Number(one) - Number(other);
    if (isNumber !== isOther) return isNumber ? -1 : 1;
    return one < other ? -1 : 1;
  }
  return 0;
}
