import type { Bus, BusMessage } from "./bus.ts";
import { createInterests, createViewers } from "./interests.ts";

/**
 * The feed of runs and turns: their viewers on this replica, and hints of their changes and output.
 *
 * The output of a run or turn appears on the replica that holds the device. A replica with viewers
 * of the work announces its interest to all others (`watch`) and renews the announcement; the holder
 * sends the output to the interested replicas.
 *
 *   device ─▶ output (holder) ──output──▶ receive (interested replica) ─▶ viewers
 */

export type OutputChunk = {
  orgId: string;
  workId: string;
  attempt: number;
  /** All 64 bits of the protocol's number. */
  sequence: bigint;
  /** OUTPUT_STREAM_…, as in the proto. */
  stream: number;
  data: Uint8Array;
};

export type Viewer = {
  onChange(): void;
  onOutput(chunk: OutputChunk): void;
};

type WorkName = { orgId: string; workId: string };

/**
 * Maximum bytes of a relayed chunk: in base64 and with its envelope the chunk fits into one
 * notification.
 */
const relayedBytesMax = 5_000;
/** Stream numbers from here on carry an agent's activity instead of a program's output. */
export const activityStreamsMin = 100;

export class WorkFeed {
  readonly #bus: Bus;
  readonly #replicaId: string;
  readonly #tell: (viewer: () => void) => void;
  readonly #viewers = createViewers<Viewer>((key) => this.#announce(key));
  readonly #interests = createInterests(() => ({}));
  readonly #tails = new OutputTails();

  constructor(options: { bus: Bus; replicaId: string; tell: (viewer: () => void) => void }) {
    this.#bus = options.bus;
    this.#replicaId = options.replicaId;
    this.#tell = options.tell;
  }

  watch(work: WorkName, viewer: Viewer): () => void {
    const key = keyOf(work);
    const { isFirst, leave } = this.#viewers.add(key, viewer);
    for (const chunk of this.#tails.chunksOf(key)) viewer.onOutput(chunk);
    if (isFirst) this.#announce(key, true);
    return () => {
      if (!leave()) return;
      // A later viewer receives the output anew from the replica that holds the device.
      if (this.#tails.isRelayed(key)) this.#tails.forget(key);
      this.#bus.broadcast({ kind: "unwatch", ...work, replicaId: this.#replicaId });
    };
  }

  output(chunk: OutputChunk): void {
    const key = keyOf(chunk);
    this.#show(key, chunk, false);
    this.#relay(this.#interested(key), chunk);
  }

  tailOf({ attempt, ...work }: WorkName & { attempt: number }): string {
    const own = this.#tails.ownChunksOf(keyOf(work));
    const chunks = own.filter((chunk) => chunk.attempt === attempt && isOutput(chunk));
    return Buffer.concat(chunks.map((chunk) => chunk.data))
      .toString("utf8")
      .replace(/^\ufffd+/, "");
  }

  changed({ orgId, workId, isEnded }: WorkName & { isEnded: boolean }): void {
    const key = keyOf({ orgId, workId });
    this.#tellChange(key);
    for (const to of this.#interested(key)) this.#bus.send(to, { kind: "work_changed", orgId, workId });
    if (isEnded) this.#tails.forget(key);
  }

  /** Takes another replica's message; false if the message concerns something else. */
  receive(message: BusMessage): boolean {
    switch (message.kind) {
      case "work_changed":
        this.#tellChange(keyOf(message));
        return true;
      case "output":
        if (this.#viewers.has(keyOf(message))) this.#show(keyOf(message), chunkOf(message), true);
        return true;
      case "unwatch":
        this.#interests.forget(keyOf(message), message.replicaId);
        return true;
      case "watch":
        this.#interests.note(keyOf(message), message.replicaId);
        if (message.isFirst) this.#repeat(keyOf(message), message.replicaId);
        return true;
      default:
        return false;
    }
  }

  wakeAll(): void {
    for (const key of this.#viewers.subjects()) this.#tellChange(key);
  }

  close(): void {
    this.#viewers.close();
    this.#interests.close();
  }

  #announce(key: string, isFirst = false): void {
    this.#bus.broadcast({ kind: "watch", ...splitKey(key), replicaId: this.#replicaId, isFirst });
  }

  #interested(key: string): string[] {
    return this.#interests.of(key).map(([replicaId]) => replicaId);
  }

  #tellChange(key: string): void {
    for (const viewer of this.#viewers.of(key)) this.#tell(() => viewer.onChange());
  }

  /** Keeps output for later viewers, and shows the output to the viewers on this replica. */
  #show(key: string, chunk: OutputChunk, isRelayed: boolean): void {
    this.#tails.keep(key, chunk, isRelayed);
    for (const viewer of this.#viewers.of(key)) this.#tell(() => viewer.onOutput(chunk));
  }

  /** Sends the output kept so far to a replica with a first viewer. */
  #repeat(key: string, replicaId: string): void {
    for (const chunk of this.#tails.ownChunksOf(key)) this.#relay([replicaId], chunk);
  }

  #relay(to: readonly string[], chunk: OutputChunk): void {
    if (to.length === 0) return;
    for (const message of relayMessages(chunk))
      for (const replicaId of to) this.#bus.send(replicaId, message);
  }
}

/** A chunk of output in messages for another replica. */
function relayMessages({ orgId, workId, attempt, stream, sequence, data }: OutputChunk): BusMessage[] {
  const parts = Array.from({ length: Math.ceil(data.length / relayedBytesMax) }, (_, index) =>
    data.subarray(index * relayedBytesMax, (index + 1) * relayedBytesMax),
  );
  const common = { kind: "output", orgId, workId, attempt, sequence: String(sequence), stream } as const;
  return parts.map((part) => ({ ...common, data: Buffer.from(part).toString("base64") }));
}

function chunkOf(message: Extract<BusMessage, { kind: "output" }>): OutputChunk {
  return {
    ...message,
    sequence: BigInt(message.sequence),
    data: Buffer.from(message.data, "base64"),
  };
}

/** Whether a chunk is a program's output, and not an agent's activity (device/messages/activity.ts). */
function isOutput({ stream }: OutputChunk): boolean {
  return stream < activityStreamsMin;
}

/** A key has both ids, so that no viewer hears of another org's work. */
function keyOf(work: WorkName): string {
  return `${work.workId} ${work.orgId}`;
}

function splitKey(key: string): WorkName {
  const at = key.indexOf(" ");
  return { workId: key.slice(0, at), orgId: key.slice(at + 1) };
}

/** Maximum bytes of output kept of each run or turn, for later viewers. */
const tailBytesMax = 32_768;
const chunkOverheadBytes = 256;
/** Maximum bytes of output kept of all work of the replica. */
const tailsBytesMax = 64 * 1024 * 1024;

/** The last output of a run or a turn. `isRelayed`: all chunks came from another replica. */
type Tail = { chunks: OutputChunk[]; bytes: number; isRelayed: boolean };

/** The last output of each run and turn; beyond the bounds the oldest output goes first. */
class OutputTails {
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
