import type { Logger } from "../../log.ts";
import type { Bus, BusMessage } from "./bus.ts";
import { createInterests, createViewers } from "./interests.ts";
import { type OutputChunk, OutputTails } from "./output-tails.ts";
import { createTransients, type Transients } from "./transients.ts";

/**
 * The feed: the viewers on a replica and the hints sent to them. The feed holds hints and a little
 * output; a viewer that is woken reads the state from the database.
 *
 * A run's output appears on the replica that holds its device. A replica with viewers of the run
 * announces its interest to all others (`watch`) and renews the announcement, and the holder sends
 * it the output.
 */

export type { OutputChunk };

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
  const { bus, replicaId } = options;
  const transients = createTransients(options);
  const tell = guarding(options.log);
  const events = createEventWakes(bus, tell);
  const announce = (key: string, isFirst = false) =>
    bus.broadcast({ kind: "watch", ...splitKey(key), replicaId, isFirst });
  const viewers = createViewers<Viewer>(announce);
  const interests = createInterests(() => ({}));
  const tails = new OutputTails();

  function relay(to: readonly string[], chunk: OutputChunk): void {
    if (to.length === 0) return;
    for (const message of relayMessages(chunk)) for (const one of to) bus.send(one, message);
  }

  function tellChange(key: string): void {
    for (const viewer of viewers.of(key)) tell(() => viewer.onChange());
  }

  /** Keeps output for later viewers, and shows the output to the viewers here. */
  function show(key: string, chunk: OutputChunk, isRelayed: boolean): void {
    tails.keep(key, chunk, isRelayed);
    for (const viewer of viewers.of(key)) tell(() => viewer.onOutput(chunk));
  }

  const interested = (key: string) => interests.of(key).map(([id]) => id);

  return {
    ...{ subscribe: events.subscribe, eventsAppended: events.appended },
    ...{ watchOrg: transients.watch, transient: transients.tell, introduce: transients.introduce },
    watchWork(work, viewer) {
      const key = keyOf(work);
      const { isFirst, leave } = viewers.add(key, viewer);
      for (const chunk of tails.chunksOf(key)) viewer.onOutput(chunk);
      if (isFirst) announce(key, true);
      return () => {
        if (!leave()) return;
        // A later viewer receives the output anew from the replica that has it.
        if (tails.isRelayed(key)) tails.forget(key);
        bus.broadcast({ kind: "unwatch", ...work, replicaId });
      };
    },
    output(chunk) {
      const key = keyOf(chunk);
      show(key, chunk, false);
      relay(interested(key), chunk);
    },
    tailOf({ attempt, ...work }) {
      const own = tails.ownChunksOf(keyOf(work));
      const chunks = own.filter((chunk) => chunk.attempt === attempt && isOutput(chunk));
      return Buffer.concat(chunks.map((chunk) => chunk.data))
        .toString("utf8")
        .replace(/^\ufffd+/, "");
    },
    workChanged({ orgId, workId, isEnded }) {
      const key = keyOf({ orgId, workId });
      tellChange(key);
      for (const to of interested(key)) bus.send(to, { kind: "work_changed", orgId, workId });
      if (isEnded) tails.forget(key);
    },
    receive(message) {
      switch (message.kind) {
        case "events":
          events.wake(message.orgId);
          return true;
        case "work_changed":
          tellChange(keyOf(message));
          return true;
        case "output":
          if (viewers.has(keyOf(message))) show(keyOf(message), chunkOf(message), true);
          return true;
        case "unwatch":
          interests.forget(keyOf(message), message.replicaId);
          return true;
        case "watch": {
          const key = keyOf(message);
          interests.note(key, message.replicaId);
          if (message.isFirst) for (const chunk of tails.ownChunksOf(key)) relay([message.replicaId], chunk);
          return true;
        }
        default:
          return transients.receive(message);
      }
    },
    wakeAll() {
      events.wakeAll();
      for (const key of viewers.subjects()) tellChange(key);
      transients.resyncAll();
    },
    close() {
      for (const part of [transients, events, viewers, interests]) part.close();
    },
  };
}

type Tell = (viewer: () => void) => void;

/** A viewer that throws must not fail the device's stream, nor the other viewers. */
function guarding(log: Logger): Tell {
  return (viewer) => {
    try {
      viewer();
    } catch (error) {
      log.error({ err: error }, "a viewer of a run or an org could not be told");
    }
  };
}

/** The streams that wait for events of an org, here and on other replicas. */
function createEventWakes(bus: Bus, tell: Tell) {
  const wakesOf = new Map<string, Set<() => void>>();
  const announced = new Map<string, NodeJS.Timeout>();

  function wake(orgId: string): void {
    for (const one of wakesOf.get(orgId) ?? []) tell(one);
  }

  return {
    subscribe(orgId: string, wakeOne: () => void): () => void {
      const wakes = wakesOf.get(orgId) ?? new Set();
      wakesOf.set(orgId, wakes.add(wakeOne));
      return () => {
        wakes.delete(wakeOne);
        if (wakes.size === 0) wakesOf.delete(orgId);
      };
    },
    appended(orgId: string): void {
      wake(orgId);
      if (announced.has(orgId)) return;
      const timer = setTimeout(() => {
        announced.delete(orgId);
        bus.broadcast({ kind: "events", orgId });
      }, eventsCoalesceMs);
      announced.set(orgId, timer);
    },
    wake,
    wakeAll(): void {
      for (const orgId of wakesOf.keys()) wake(orgId);
    },
    close(): void {
      for (const timer of announced.values()) clearTimeout(timer);
    },
  };
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

/** Whether a chunk is a program's output, and not an agent's activity (device/activity.ts). */
function isOutput({ stream }: OutputChunk): boolean {
  return stream < activityStreamsMin;
}

/** Has both ids, so that no viewer hears of another org's run. */
function keyOf(run: { orgId: string; workId: string }): string {
  return `${run.workId} ${run.orgId}`;
}

function splitKey(key: string): { orgId: string; workId: string } {
  const at = key.indexOf(" ");
  return { workId: key.slice(0, at), orgId: key.slice(at + 1) };
}
