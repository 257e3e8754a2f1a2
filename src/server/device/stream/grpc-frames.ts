import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type AttemptRef, HeartbeatSchema } from "#gen/pinion/v1/device_pb.js";

/**
 * The frames of gRPC, on their bytes: messages are cut out of arriving bytes, and heartbeats, the
 * most frequent messages by far, are read and answered without a message object if the device's
 * attempts stay the same. Every other form of a heartbeat is left to protobuf-es.
 * `test/unit/server/device/plain-beats.test.ts` compares both ways.
 */

/** gRPC's framing: a byte of flags and four of length precede each message. */
export const prefixBytes = 5;
const isCompressedFlag = 1;
/** Shared by all readers: most of them are between two messages. */
const noChunks: Buffer[] = [];

/**
 * Cuts messages out of arriving bytes, in chunks of any size. Holds at most one incomplete message.
 */
export class FrameReader {
  readonly #messageBytesMax: number;
  #chunks = noChunks;
  #bytes = 0;
  /** The number of bytes that completes the first message, or its prefix. */
  #wanted = prefixBytes;

  constructor(messageBytesMax: number) {
    this.#messageBytesMax = messageBytesMax;
  }

  /** Number of bytes not yet returned as a message. */
  get bytesLeft(): number {
    return this.#bytes;
  }

  push(chunk: Buffer): void {
    if (this.#chunks.length > 0) this.#chunks.push(chunk);
    else this.#chunks = [chunk];
    this.#bytes += chunk.length;
  }

  /**
   * The next message, if complete. Throws `resource_exhausted` for a message above the limit,
   * before the message has arrived, and `internal` for a compressed message; after an error nothing
   * more can be read.
   */
  next(): Buffer | undefined {
    if (this.#bytes < this.#wanted) return undefined;
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    const bytes = this.#chunks[0]!;
    const length = bytes.readUInt32BE(1);
    if (length > this.#messageBytesMax) {
      throw new ConnectError(
        `message size ${length} is larger than the ${this.#messageBytesMax} bytes that are taken`,
        Code.ResourceExhausted,
      );
    }
    if ((bytes[0]! & isCompressedFlag) !== 0) {
      throw new ConnectError("the message is compressed, and its stream takes no compression", Code.Internal);
    }
    this.#wanted = prefixBytes + length;
    if (this.#bytes < this.#wanted) return undefined;
    const message = bytes.subarray(prefixBytes, this.#wanted);
    this.#bytes -= this.#wanted;
    this.#chunks = this.#bytes > 0 ? [bytes.subarray(this.#wanted)] : noChunks;
    this.#wanted = prefixBytes;
    return message;
  }

  /** Drops the received bytes. */
  clear(): void {
    this.#chunks = noChunks;
    this.#bytes = 0;
  }
}

/** A message with its prefix. */
export function framed(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(prefixBytes + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, prefixBytes);
  return frame;
}

/**
 * Tags of the fields: the number of the field times 8, and the wire type (0: varint, 2: length).
 */
const heartbeatTag = (2 << 3) | 2;
const sequenceTag = 1 << 3;
const attemptsTag = (2 << 3) | 2;
const heartbeatAckTag = (2 << 3) | 2;
const serverTimeTag = (2 << 3) | 2;
const secondsTag = 1 << 3;
const nanosTag = (2 << 3) | 0;

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
