/**
 * Heartbeats of a device whose attempts stay the same, the most frequent messages by far, on their
 * bytes: cut out of a ConnectRequest, and answered by a ConnectResponse, without a message object.
 * Every other form of a heartbeat is left to protobuf-es. `test/unit/server/plain-beats.test.ts`
 * compares both ways.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { type AttemptRef, HeartbeatSchema } from "#gen/pinion/v1/device_pb.js";

/** Tags of the fields: the number of the field times 8, and the wire type (0: varint, 2: length). */
const heartbeatTag = (2 << 3) | 2;
const sequenceTag = 1 << 3;
const attemptsTag = (2 << 3) | 2;
const heartbeatAckTag = (2 << 3) | 2;
const serverTimeTag = (2 << 3) | 2;
const secondsTag = 1 << 3;
const nanosTag = (2 << 3) | 0;

const prefixBytes = 5;
const varintBytesMax = 10;

export type PlainBeat = {
  /** The sequence, as encoded. */
  sequence: Uint8Array;
  /** The listed attempts, as encoded; empty without attempts. */
  listed: Uint8Array;
};

/**
 * The parts of an encoded ConnectRequest with a heartbeat: its sequence, and after that its
 * attempts; undefined for other messages and other orders of the fields.
 */
export function plainBeatOf(bytes: Uint8Array): PlainBeat | undefined {
  if (bytes[0] !== heartbeatTag) return undefined;
  const start = varintEnd(bytes, 1);
  if (start === 0 || start - 1 > 4 || lengthAt(bytes, 1, start) !== bytes.length - start) return undefined;
  if (bytes[start] !== sequenceTag) return undefined;
  const end = varintEnd(bytes, start + 1);
  if (end === 0 || (end < bytes.length && bytes[end] !== attemptsTag)) return undefined;
  return { sequence: bytes.subarray(start + 1, end), listed: bytes.subarray(end) };
}

/**
 * Whether the listed attempts are encoded as protobuf-es encodes them: without unknown fields, a
 * second sequence, or another form of a length. Only such a list may be recognised by its bytes.
 */
export function isPlainList(listed: Uint8Array, attempts: readonly AttemptRef[]): boolean {
  const encoded = toBinary(HeartbeatSchema, create(HeartbeatSchema, { attempts: [...attempts] }));
  return Buffer.compare(encoded, listed) === 0;
}

/** The end of the varint at the index; 0 if the varint has no end. */
function varintEnd(bytes: Uint8Array, at: number): number {
  for (let index = at; index < bytes.length && index - at < varintBytesMax; index++) {
    if (bytes[index]! < 0x80) return index + 1;
  }
  return 0;
}

function lengthAt(bytes: Uint8Array, at: number, end: number): number {
  let length = 0;
  for (let index = end - 1; index >= at; index--) length = (length << 7) | (bytes[index]! & 0x7f);
  return length;
}

/** The frame of the answer to a heartbeat: a ConnectResponse with its prefix. */
export function beatAckFrame(sequence: Uint8Array, nowMs: number): Buffer {
  const seconds = Math.floor(nowMs / 1_000);
  const nanos = Math.floor(nowMs % 1_000) * 1_000_000;
  const timeBytes = 1 + varintBytes(seconds) + (nanos > 0 ? 1 + varintBytes(nanos) : 0);
  const ackBytes = 1 + sequence.length + 2 + timeBytes;
  const frame = Buffer.allocUnsafe(prefixBytes + 2 + ackBytes);
  frame[0] = 0;
  frame.writeUInt32BE(2 + ackBytes, 1);
  frame[5] = heartbeatAckTag;
  frame[6] = ackBytes;
  frame[7] = sequenceTag;
  frame.set(sequence, 8);
  let at = 8 + sequence.length;
  frame[at++] = serverTimeTag;
  frame[at++] = timeBytes;
  frame[at++] = secondsTag;
  at = writeVarint(frame, at, seconds);
  if (nanos > 0) {
    frame[at++] = nanosTag;
    writeVarint(frame, at, nanos);
  }
  return frame;
}

function varintBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) count++;
  return count;
}

function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  let rest = value;
  let index = at;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes[index++] = (rest % 0x80) | 0x80;
  bytes[index++] = rest;
  return index;
}
