/**
 * Writes the fields of a protobuf message in the order of their numbers, as protobuf-es encodes them
 * (test/unit/server/plain-frames.test.ts compares): for the few messages of every run, whose objects
 * cost more than their bytes. All writers share one buffer, so a message is written in one go,
 * without waiting in between.
 */

/** The wire type of texts and messages; numbers have wire type 0. */
const lengthDelimited = 2;
/** gRPC's prefix: a byte of flags, and four of length. */
const prefixBytes = 5;
/** A varint of a number below 2^53. */
const varintBytesMax = 8;
const oneByteMax = 0x7f;

let buffer = Buffer.allocUnsafe(16_384);
let at = 0;

/** The frame of the message that `write` writes: the message with gRPC's prefix. */
export function frameOf(write: () => void): Buffer {
  at = prefixBytes;
  write();
  buffer[0] = 0;
  buffer.writeUInt32BE(at - prefixBytes, 1);
  return Buffer.from(buffer.subarray(0, at));
}

/** A text; an empty one is left out. */
export function text(field: number, value: string): void {
  if (value !== "") presentText(field, value);
}

/** A text of a `oneof` or a map: written also if it is empty. */
export function presentText(field: number, value: string): void {
  // A UTF-16 unit is three bytes of UTF-8 at most.
  reserve(3 * value.length + 2 * varintBytesMax);
  tag(field, lengthDelimited);
  if (3 * value.length <= oneByteMax) {
    const length = buffer.write(value, at + 1);
    buffer[at] = length;
    at += 1 + length;
    return;
  }
  varint(Buffer.byteLength(value));
  at += buffer.write(value, at);
}

/** A number from 0 to 2^53, or an enum; 0 is left out. */
export function number(field: number, value: number): void {
  if (value === 0) return;
  reserve(2 * varintBytesMax);
  tag(field, 0);
  varint(value);
}

/** A message that is encoded already. */
export function encoded(field: number, bytes: Uint8Array): void {
  reserve(bytes.length + 2 * varintBytesMax);
  tag(field, lengthDelimited);
  varint(bytes.length);
  buffer.set(bytes, at);
  at += bytes.length;
}

/** A message whose fields `write` writes. */
export function message(field: number, write: () => void): void {
  reserve(2 * varintBytesMax);
  tag(field, lengthDelimited);
  const lengthAt = at++;
  write();
  const length = at - lengthAt - 1;
  if (length <= oneByteMax) {
    buffer[lengthAt] = length;
    return;
  }
  // The length takes more bytes than were left for it: the message moves on.
  reserve(varintBytesMax);
  const end = at;
  at = lengthAt;
  const more = varintBytes(length) - 1;
  buffer.copyWithin(lengthAt + 1 + more, lengthAt + 1, end);
  varint(length);
  at = end + more;
}

/** A google.protobuf.Timestamp of milliseconds since 1970, not before. */
export function timestamp(field: number, ms: number): void {
  message(field, () => secondsAndNanos(ms));
}

/** A google.protobuf.Duration of milliseconds, not negative. */
export function duration(field: number, ms: number): void {
  message(field, () => secondsAndNanos(ms));
}

function secondsAndNanos(ms: number): void {
  const seconds = Math.floor(ms / 1_000);
  number(1, seconds);
  number(2, (ms - seconds * 1_000) * 1_000_000);
}

function tag(field: number, wireType: number): void {
  varint(field * 8 + wireType);
}

function varint(value: number): void {
  let rest = value;
  while (rest > oneByteMax) {
    buffer[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  buffer[at++] = rest;
}

function varintBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest > oneByteMax; rest = Math.floor(rest / 0x80)) count++;
  return count;
}

/** Makes room for more bytes. */
function reserve(bytes: number): void {
  if (at + bytes <= buffer.length) return;
  const larger = Buffer.allocUnsafe(Math.max(2 * buffer.length, at + bytes));
  buffer.copy(larger, 0, 0, at);
  buffer = larger;
}
