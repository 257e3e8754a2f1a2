import type { BusMessage } from "./bus.ts";

/**
 * Output of the programs of runs and turns: the chunks of devices, the messages that carry the
 * chunks to other replicas, and the last output of each run or turn, kept for later viewers.
 */

export type OutputChunk = {
  orgId: string;
  workId: string;
  /** The device that had the attempt: its owner decides who reads the chunk. */
  deviceId: string;
  attempt: number;
  /** All 64 bits of the protocol's number. */
  sequence: bigint;
  /** OUTPUT_STREAM_…, as in the proto. */
  stream: number;
  data: Uint8Array;
};

/**
 * Maximum bytes of a relayed chunk: in base64 and with its envelope the chunk fits into one
 * notification.
 */
const relayedBytesMax = 5_000;
/** Stream numbers from here on carry an agent's activity instead of a program's output. */
export const activityStreamsMin = 100;

/** A chunk of output in messages for another replica. */
export function relayMessages({ sequence, data, ...named }: OutputChunk): BusMessage[] {
  const parts = Array.from({ length: Math.ceil(data.length / relayedBytesMax) }, (_, index) =>
    data.subarray(index * relayedBytesMax, (index + 1) * relayedBytesMax),
  );
  const common = { kind: "output", ...named, sequence: String(sequence) } as const;
  return parts.map((part) => ({ ...common, data: Buffer.from(part).toString("base64") }));
}

export function chunkOf(message: Extract<BusMessage, { kind: "output" }>): OutputChunk {
  return {
    ...message,
    sequence: BigInt(message.sequence),
    data: Buffer.from(message.data, "base64"),
  };
}

/**
 * Whether a chunk is a program's output, and not an agent's activity (device/messages/activity.ts).
 */
export function isOutput({ stream }: OutputChunk): boolean {
  return stream < activityStreamsMin;
}

/** Maximum bytes of output kept of each run or turn, for later viewers. */
const tailBytesMax = 32_768;
const chunkOverheadBytes = 256;
/** Maximum bytes of output kept of all work of the replica. */
const tailsBytesMax = 64 * 1024 * 1024;

/** The last output of a run or a turn. `isRelayed`: all chunks came from another replica. */
type Tail = { chunks: OutputChunk[]; bytes: number; isRelayed: boolean };

/** The last output of each run and turn; beyond the bounds the oldest output goes first. */
export class OutputTails {
  readonly #tails = new Map<string, Tail>();
  #bytes = 0;

  keep(key: string, chunk: OutputChunk, isRelayed: boolean): void {
    const tail = this.#tails.get(key) ?? { chunks: [], bytes: 0, isRelayed: true };
    tail.isRelayed &&= isRelayed;
    // Moves the work to the end of the map, so that the work with the oldest output is forgotten
    // first.
    this.#tails.delete(key);
    this.#tails.set(key, tail);
    tail.chunks.push(chunk);
    this.#count(tail, sizeOf(chunk));
    while (tail.bytes > tailBytesMax && tail.chunks.length > 1) {
      const dropped = tail.chunks.shift();
      if (dropped) this.#count(tail, -sizeOf(dropped));
    }
    for (const oldest of this.#tails.keys()) {
      if (this.#bytes <= tailsBytesMax) break;
      this.forget(oldest);
    }
  }

  chunksOf(key: string): readonly OutputChunk[] {
    return this.#tails.get(key)?.chunks ?? [];
  }

  /** The chunks that came from a device of this replica. */
  ownChunksOf(key: string): readonly OutputChunk[] {
    const tail = this.#tails.get(key);
    return tail && !tail.isRelayed ? tail.chunks : [];
  }

  isRelayed(key: string): boolean {
    return this.#tails.get(key)?.isRelayed ?? false;
  }

  forget(key: string): void {
    this.#bytes -= this.#tails.get(key)?.bytes ?? 0;
    this.#tails.delete(key);
  }

  #count(tail: Tail, bytes: number): void {
    tail.bytes += bytes;
    this.#bytes += bytes;
  }
}

/** Includes the overhead of a chunk, because a program may write single bytes. */
function sizeOf(chunk: OutputChunk): number {
  return chunk.data.length + chunkOverheadBytes;
}
