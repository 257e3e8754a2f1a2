import { Code, ConnectError } from "@connectrpc/connect";

/** gRPC's framing: a byte of flags and four of length precede each message. */
const prefixBytes = 5;
const isCompressedFlag = 1;

/**
 * Cuts messages out of arriving bytes, in chunks of any size. Holds at most one incomplete message.
 */
export class FrameReader {
  readonly #messageBytesMax: number;
  #chunks: Buffer[] = [];
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
    this.#chunks.push(chunk);
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
    this.#chunks = this.#bytes > 0 ? [bytes.subarray(this.#wanted)] : [];
    this.#wanted = prefixBytes;
    return message;
  }

  /** Drops the received bytes. */
  clear(): void {
    this.#chunks = [];
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
