/**
 * Kept part of an output beyond the limit: its beginning, and a larger part of its end, because
 * agents answer last. A marker between the parts gives the number of missing bytes, in the same
 * form everywhere.
 */

/** Share of the beginning: 256 KiB of 1 MiB. */
const HEAD_SHARE = 1 / 4;
/** Longest marker: 19 digits and the words around them. */
const MARKER_BYTES_MAX = 48;
const MARKER = /\n… \[(\d{1,19}) bytes omitted\] …\n/g;

/** The marker in place of missing bytes. */
export function omissionMarker(bytes: number): string {
  return `\n… [${bytes} bytes omitted] …\n`;
}

/** The number of missing bytes in the marker of a cut text; 0 for a text without a marker. */
export function omittedBytesOf(text: string): number {
  return Number(markerOf(text)?.[1] ?? 0);
}

/**
 * The marker of a cut text. A program may have printed the same words: of several markers, the one
 * between a beginning and an end in their shares.
 */
function markerOf(text: string): RegExpExecArray | undefined {
  let found: { marker: RegExpExecArray; distance: number } | undefined;
  for (const marker of text.matchAll(MARKER)) {
    const after = text.length - marker.index - marker[0].length;
    const distance = Math.abs(marker.index * (1 - HEAD_SHARE) - after * HEAD_SHARE);
    if (found === undefined || distance < found.distance) found = { marker, distance };
  }
  return found?.marker;
}

/**
 * Sizes of beginning and end within a limit, with room for the marker. With a tiny limit only the
 * end is kept.
 */
function sharesOf(limitBytes: number): { head: number; tail: number } {
  if (limitBytes <= 2 * MARKER_BYTES_MAX) return { head: 0, tail: limitBytes };
  const room = limitBytes - MARKER_BYTES_MAX;
  const head = Math.floor(room * HEAD_SHARE);
  return { head, tail: room - head };
}

function joined(head: string, omitted: number, tail: string, limitBytes: number): string {
  return limitBytes <= 2 * MARKER_BYTES_MAX ? tail : head + omissionMarker(omitted) + tail;
}

/**
 * Collects an output in memory bounded by the limit and one piece. Bytes beyond the limit are read
 * and dropped.
 */
export class KeptOutput {
  readonly #limitBytes: number;
  /** The whole output up to the limit; beyond the limit, its beginning. */
  #head: Buffer[] = [];
  #headBytes = 0;
  #tail: Ring | undefined;
  #totalBytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get isCut(): boolean {
    return this.#totalBytes > this.#limitBytes;
  }

  add(data: Buffer): void {
    this.#totalBytes += data.length;
    if (this.#tail !== undefined) {
      this.#tail.add(data);
      return;
    }
    // A copy: a slice would keep the whole read buffer in memory.
    this.#head.push(Buffer.from(data));
    this.#headBytes += data.length;
    if (this.#headBytes <= this.#limitBytes) {
      // Joins many small pieces: each piece costs more memory than its bytes.
      if (this.#head.length > 1024) this.#head = [Buffer.concat(this.#head)];
      return;
    }
    const all = Buffer.concat(this.#head);
    const { head, tail } = sharesOf(this.#limitBytes);
    this.#head = [Buffer.from(all.subarray(0, head))];
    this.#tail = new Ring(tail);
    this.#tail.add(all.subarray(head));
  }

  text(): string {
    const head = Buffer.concat(this.#head);
    if (this.#tail === undefined) return head.toString("utf8");
    // Characters split by the cuts are left out.
    const before = head.subarray(0, wholeUpTo(head, head.length));
    const end = this.#tail.bytes();
    const after = end.subarray(wholeFrom(end, 0));
    const omitted = this.#totalBytes - before.length - after.length;
    return joined(before.toString("utf8"), omitted, after.toString("utf8"), this.#limitBytes);
  }
}

/**
 * Cuts a text to fewer bytes. `isCut`: it was cut before; the count of its marker is added to the
 * new marker.
 */
export function cutMiddle(
  text: string,
  limitBytes: number,
  { isCut }: { isCut: boolean },
): { text: string; isCut: boolean } {
  // A UTF-16 unit is at most 3 bytes of UTF-8: most texts need no counting.
  if (text.length * 3 <= limitBytes) return { text, isCut: false };
  const bytes = Buffer.byteLength(text);
  if (bytes <= limitBytes) return { text, isCut: false };
  const marker = isCut ? markerOf(text) : undefined;
  const before = Buffer.from(marker === undefined ? text : text.slice(0, marker.index));
  const after = Buffer.from(marker === undefined ? text : text.slice(marker.index + marker[0].length));
  const { head, tail } = sharesOf(limitBytes);
  const kept = before.subarray(0, wholeUpTo(before, Math.min(head, before.length)));
  const from = wholeFrom(after, Math.max(0, after.length - tail));
  const rest = after.subarray(from);
  const markerBytes = marker === undefined ? 0 : Buffer.byteLength(marker[0]);
  const omitted = Number(marker?.[1] ?? 0) + bytes - markerBytes - kept.length - rest.length;
  return { text: joined(kept.toString("utf8"), omitted, rest.toString("utf8"), limitBytes), isCut: true };
}

/** The largest offset up to `length` at a character boundary. */
function wholeUpTo(bytes: Buffer, length: number): number {
  for (let back = 1; back <= Math.min(4, length); back++) {
    const byte = bytes[length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const needs = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needs > back ? length - back : length;
  }
  return length;
}

/** The smallest offset from `start` at a character boundary; a character has at most 4 bytes. */
function wholeFrom(bytes: Buffer, start: number): number {
  let at = start;
  while (at < start + 3 && at < bytes.length && ((bytes[at] ?? 0) & 0xc0) === 0x80) at += 1;
  return at;
}

/** The last bytes of a stream. */
class Ring {
  readonly #buffer: Buffer;
  #written = 0;

  constructor(bytesMax: number) {
    this.#buffer = Buffer.alloc(bytesMax);
  }

  add(data: Buffer): void {
    const size = this.#buffer.length;
    if (size === 0) return;
    const last = data.subarray(-size);
    const start = (this.#written + data.length - last.length) % size;
    const first = last.copy(this.#buffer, start);
    if (first < last.length) last.copy(this.#buffer, 0, first);
    this.#written += data.length;
  }

  bytes(): Buffer {
    const size = this.#buffer.length;
    if (this.#written <= size) return this.#buffer.subarray(0, this.#written);
    const at = this.#written % size;
    return Buffer.concat([this.#buffer.subarray(at), this.#buffer.subarray(0, at)]);
  }
}
