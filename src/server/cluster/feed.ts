import type { Logger } from "../../log.ts";
import type { Bus, BusMessage } from "./bus.ts";
import { createTransients, type Transients } from "./transients.ts";

/**
 * The feed: the viewers on a replica and the hints sent to them. The feed holds hints and a little
 * output; a viewer that is woken reads the state from the database.
 *
 * A run's output appears on the replica that holds its device. A replica with viewers of the run
 * announces its interest to all others (`watch`) and renews the announcement, and the holder sends
 * it the output.
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

export type Feed = {
  /** Wakes `wake` when events of the org were appended. Returns how to stop. */
  subscribe(orgId: string, wake: () => void): () => void;
  /**
   * Reports changes and output of a run, the kept output first. Returns a function that stops the
   * reports.
   */
  watchWork(run: { orgId: string; workId: string }, viewer: Viewer): () => void;
  /** Reports the org's transient events. Returns a function that stops the reports. */
  watchOrg: Transients["watch"];
  /** Takes a transient event of the local replica; the database has the change already. */
  transient: Transients["tell"];
  /** Takes output of a device of the local replica. */
  output(chunk: OutputChunk): void;
  /**
   * The end of the output that a run's program wrote in an attempt on a device of the local
   * replica, as text; empty if none is kept here.
   */
  tailOf(run: { orgId: string; workId: string; attempt: number }): string;
  /** Reports a change of a run's state. `isEnded`: the run's output is no longer needed. */
  workChanged(run: { orgId: string; workId: string; isEnded: boolean }): void;
  /** Reports events of the org committed by the local replica. */
  eventsAppended(orgId: string): void;
  /** Takes another replica's message; false if the message is not for the feed. */
  receive(message: BusMessage): boolean;
  /** The replica receives the others' messages from now on: the others repeat their interests. */
  introduce(): void;
  /** Wakes all viewers: messages may have been missed. */
  wakeAll(): void;
  close(): void;
};

/** Maximum bytes of output kept of each run, for later viewers. */
const tailBytesMax = 32_768;
const chunkOverheadBytes = 256;
/** Maximum bytes of output kept of all runs of the replica. */
const tailsBytesMax = 64 * 1024 * 1024;
/**
 * How long another replica's interest holds, in milliseconds; it is renewed every third of the
 * time.
 */
const interestMs = 60_000;
const interestsMax = 50_000;
/**
 * Maximum bytes of a relayed chunk: in base64 and with its envelope the chunk fits into one
 * notification.
 */
const relayedBytesMax = 5_000;
/** Stream numbers from here on carry an agent's activity instead of a program's output. */
export const activityStreamsMin = 100;
/**
 * Announcements of an org's events are held back for this time, in milliseconds, so that a busy org
 * sends few.
 */
const eventsCoalesceMs = 20;

export function createFeed(options: { bus: Bus; replicaId: string; log: Logger }): Feed {
  const transients = createTransients(options);
  const orgs = new Map<string, Set<() => void>>();
  const watched = new Map<string, Set<Viewer>>();
  const interests = new Map<string, Map<string, number>>();
  /** `isRelayed`: all chunks came from another replica, for local viewers. */
  const tails = new Map<string, { chunks: OutputChunk[]; bytes: number; isRelayed: boolean }>();
  let tailsBytes = 0;
  const announced = new Map<string, NodeJS.Timeout>();

  const renew = setInterval(() => {
    for (const [key, viewers] of watched) if (viewers.size > 0) announceInterest(splitKey(key), false);
    const now = performance.now();
    for (const [key, replicas] of interests) {
      for (const [replicaId, until] of replicas) if (until < now) replicas.delete(replicaId);
      if (replicas.size === 0) interests.delete(key);
    }
  }, interestMs / 3);
  renew.unref();

  function announceInterest(run: { orgId: string; workId: string }, isFirst: boolean): void {
    options.bus.broadcast({ kind: "watch", ...run, replicaId: options.replicaId, isFirst });
  }

  function interested(key: string): string[] {
    const now = performance.now();
    return [...(interests.get(key) ?? [])]
      .filter(([, until]) => until >= now)
      .map(([replicaId]) => replicaId);
  }

  function relay(replicaIds: readonly string[], chunk: OutputChunk): void {
    for (let at = 0; at < chunk.data.length; at += relayedBytesMax) {
      const data = Buffer.from(chunk.data.subarray(at, at + relayedBytesMax)).toString("base64");
      const { orgId, workId, attempt, stream } = chunk;
      const sequence = String(chunk.sequence);
      for (const to of replicaIds) {
        options.bus.send(to, { kind: "output", orgId, workId, attempt, sequence, stream, data });
      }
    }
  }

  function keep(key: string, chunk: OutputChunk, isRelayed: boolean): void {
    const tail = tails.get(key) ?? { chunks: [], bytes: 0, isRelayed: true };
    tail.isRelayed &&= isRelayed;
    // Moves the run to the end of the map, so that the runs with the oldest output are forgotten
    // first.
    tails.delete(key);
    tails.set(key, tail);
    tail.chunks.push(chunk);
    tail.bytes += sizeOf(chunk);
    tailsBytes += sizeOf(chunk);
    while (tail.bytes > tailBytesMax && tail.chunks.length > 1) {
      const dropped = sizeOf(tail.chunks.shift()!);
      tail.bytes -= dropped;
      tailsBytes -= dropped;
    }
    while (tailsBytes > tailsBytesMax) forget(tails.keys().next().value!);
  }

  function forget(key: string): void {
    tailsBytes -= tails.get(key)?.bytes ?? 0;
    tails.delete(key);
  }

  /** A viewer that throws must not fail the device's stream, nor the other viewers. */
  function tell(viewer: () => void): void {
    try {
      viewer();
    } catch (error) {
      options.log.error({ err: error }, "a viewer of a run or an org could not be told");
    }
  }

  function wakeOrg(orgId: string): void {
    for (const wake of orgs.get(orgId) ?? []) tell(wake);
  }

  function tellChange(key: string): void {
    for (const viewer of watched.get(key) ?? []) tell(() => viewer.onChange());
  }

  function tellOutput(key: string, chunk: OutputChunk): void {
    for (const viewer of watched.get(key) ?? []) tell(() => viewer.onOutput(chunk));
  }

  /**
   * Takes output of another replica's device. The feed keeps the output for later local viewers.
   */
  function relayed(key: string, chunk: OutputChunk): void {
    if (!watched.has(key)) return;
    keep(key, chunk, true);
    tellOutput(key, chunk);
  }

  return {
    subscribe(orgId, wake) {
      const wakes = orgs.get(orgId) ?? new Set();
      orgs.set(orgId, wakes.add(wake));
      return () => {
        wakes.delete(wake);
        if (wakes.size === 0) orgs.delete(orgId);
      };
    },
    watchWork(run, viewer) {
      const key = keyOf(run);
      const viewers = watched.get(key) ?? new Set();
      const isFirst = viewers.size === 0;
      watched.set(key, viewers.add(viewer));
      for (const chunk of tails.get(key)?.chunks ?? []) viewer.onOutput(chunk);
      if (isFirst) announceInterest(run, true);
      return () => {
        viewers.delete(viewer);
        if (viewers.size > 0) return;
        watched.delete(key);
        // A later viewer receives the output anew from the replica that has it.
        if (tails.get(key)?.isRelayed) forget(key);
        options.bus.broadcast({ kind: "unwatch", ...run, replicaId: options.replicaId });
      };
    },
    watchOrg: transients.watch,
    transient: transients.tell,
    introduce: transients.introduce,
    output(chunk) {
      const key = keyOf(chunk);
      keep(key, chunk, false);
      tellOutput(key, chunk);
      const replicaIds = interested(key);
      if (replicaIds.length > 0) relay(replicaIds, chunk);
    },
    tailOf({ attempt, ...run }) {
      const tail = tails.get(keyOf(run));
      if (!tail || tail.isRelayed) return "";
      const chunks = tail.chunks.filter((chunk) => chunk.attempt === attempt && isOutput(chunk));
      return Buffer.concat(chunks.map((chunk) => chunk.data))
        .toString("utf8")
        .replace(/^\ufffd+/, "");
    },
    workChanged({ orgId, workId, isEnded }) {
      const key = keyOf({ orgId, workId });
      tellChange(key);
      for (const replicaId of interested(key)) options.bus.send(replicaId, { kind: "run", orgId, workId });
      if (isEnded) forget(key);
    },
    eventsAppended(orgId) {
      wakeOrg(orgId);
      if (announced.has(orgId)) return;
      announced.set(
        orgId,
        setTimeout(() => {
          announced.delete(orgId);
          options.bus.broadcast({ kind: "events", orgId });
        }, eventsCoalesceMs),
      );
    },
    receive(message) {
      switch (message.kind) {
        case "events":
          wakeOrg(message.orgId);
          return true;
        case "run":
          tellChange(keyOf(message));
          return true;
        case "output":
          relayed(keyOf(message), {
            ...message,
            sequence: BigInt(message.sequence),
            data: Buffer.from(message.data, "base64"),
          });
          return true;
        case "unwatch":
          interests.get(keyOf(message))?.delete(message.replicaId);
          return true;
        case "watch": {
          const key = keyOf(message);
          const replicas = interests.get(key) ?? new Map<string, number>();
          if (interests.size < interestsMax) interests.set(key, replicas);
          replicas.set(message.replicaId, performance.now() + interestMs);
          const tail = tails.get(key);
          if (message.isFirst && tail && !tail.isRelayed) {
            for (const chunk of tail.chunks) relay([message.replicaId], chunk);
          }
          return true;
        }
        default:
          return transients.receive(message);
      }
    },
    wakeAll() {
      for (const orgId of orgs.keys()) wakeOrg(orgId);
      for (const key of watched.keys()) tellChange(key);
      transients.resyncAll();
    },
    close() {
      transients.close();
      clearInterval(renew);
      for (const timer of announced.values()) clearTimeout(timer);
    },
  };
}

/** Whether a chunk is a program's output, and not an agent's activity (device/activity.ts). */
function isOutput({ stream }: OutputChunk): boolean {
  return stream < activityStreamsMin;
}

/** Includes the overhead of a chunk, because a program may write single bytes. */
function sizeOf(chunk: OutputChunk): number {
  return chunk.data.length + chunkOverheadBytes;
}

/** Has both ids, so that no viewer hears of another org's run. */
function keyOf(run: { orgId: string; workId: string }): string {
  return `${run.workId} ${run.orgId}`;
}

function splitKey(key: string): { orgId: string; workId: string } {
  const at = key.indexOf(" ");
  return { workId: key.slice(0, at), orgId: key.slice(at + 1) };
}
