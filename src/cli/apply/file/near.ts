import { editDistance } from "../../../values/edit-distance.ts";

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
