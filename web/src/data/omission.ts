/** The beginning's share of a cut output, as devices cut it. */
const headShare = 1 / 4;

/**
 * Number of bytes missing in a cut output, from the device's marker. A program may have printed the
 * same words: of several markers, the one between a beginning and an end in their shares.
 */
export function omittedBytesOf(text: string): number {
  let found = { omitted: 0, distance: Number.POSITIVE_INFINITY };
  for (const marker of text.matchAll(/\n… \[(\d{1,19}) bytes omitted\] …\n/g)) {
    const after = text.length - marker.index - marker[0].length;
    const distance = Math.abs(marker.index * (1 - headShare) - after * headShare);
    if (distance < found.distance) found = { omitted: Number(marker[1]), distance };
  }
  return found.omitted;
}
