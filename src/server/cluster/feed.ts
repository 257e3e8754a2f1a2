import type { Subscriber } from "../../scheduler/publisher.ts";
import type { WorkKind } from "../../store/work/attempts/active.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Bus, BusMessage } from "./bus.ts";
import { createInterests, createViewers } from "./interests.ts";
import { chunkOf, isOutput, type OutputChunk, OutputTails, relayMessages } from "./output.ts";
import { createTransients, type Transients } from "./transients.ts";

/**
 * The feed: the viewers on a replica and the hints sent to them, in three parts: events of orgs,
 * changes and output of runs and turns (the output is kept by output.ts), and transient events
 * (transients.ts). The feed holds hints and a little output; a viewer that is woken reads the state
 * from the database.
 */

export type Viewer = {
  onChange(): void;
  onOutput(chunk: OutputChunk): void;
};

type WorkName = { orgId: string; workId: string };

export type Feed = {
  /** Wakes `wake` when events of the org were appended. Returns how to stop. */
  subscribe(orgId: string, wake: () => void): () => void;
  /**
   * Reports changes and output of a run or turn, the kept output first. Returns a function that
   * stops the reports.
   */
  watchWork(work: { orgId: string; workId: string }, viewer: Viewer): () => void;
  /** Reports the org's transient events. Returns a function that stops the reports. */
  watchOrg: Transients["watch"];
  /** Takes a transient event of the local replica; the database has the change already. */
  transient: Transients["tell"];
  /** Takes output of a device of the local replica. */
  output(chunk: OutputChunk): void;
  /**
   * The end of the output that the program of an attempt wrote on a device of the local replica, as
   * text; empty if none is kept here.
   */
  tailOf(work: { orgId: string; workId: string; attempt: number }): string;
  /** Reports a change of a run or turn. `isEnded`: the output is no longer needed. */
  workChanged(work: { orgId: string; workId: string; isEnded: boolean }): void;
  /** An attempt of a device of the local replica was pushed or accepted. */
  attemptMoved(
    session: { orgId: string; deviceId: string; epoch: number },
    kind: "run.claimed" | "run.started",
    attempt: { kind: WorkKind; workId: string; watcherId: string; attempt: number },
  ): void;
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
 * Announcements of an org's events are held back for this time, in milliseconds, so that a busy org
 * sends few.
 */
const eventsCoalesceMs = 50;

export function createFeed(options: { bus: Bus; replicaId: string; log: Logger }): Feed {
  const tell = guarding(options.log);
  const transients = createTransients(options);
  const events = createEventWakes(options.bus, tell);
  const work = new WorkFeed({ ...options, tell });
  return {
    ...{ subscribe: events.subscribe, eventsAppended: events.appended },
    ...{ watchOrg: transients.watch, transient: transients.tell, introduce: transients.introduce },
    watchWork: (named, viewer) => work.watch(named, viewer),
    output: (chunk) => work.output(chunk),
    tailOf: (attempt) => work.tailOf(attempt),
    workChanged: (change) => work.changed(change),
    attemptMoved({ orgId, deviceId, epoch }, kind, { kind: of, workId, watcherId, attempt }) {
      work.changed({ orgId, workId, isEnded: false });
      if (of === "run") transients.tell(orgId, { kind, deviceId, epoch, workId, watcherId, attempt });
    },
    receive: (message) => events.receive(message) || work.receive(message) || transients.receive(message),
    wakeAll() {
      events.wakeAll();
      work.wakeAll();
      transients.resyncAll();
    },
    close() {
      for (const part of [transients, events, work]) part.close();
    },
  };
}

/** A viewer that throws must not fail the device's stream, nor the other viewers. */
function guarding(log: Logger): (viewer: () => void) => void {
  return (viewer) => {
    try {
      viewer();
    } catch (error) {
      log.error({ err: error }, "a viewer of a run or an org could not be told");
    }
  };
}

/**
 * The streams on this replica that wait for events of an org. Events committed here wake the
 * streams here at once, and the streams of other replicas by a message.
 */
function createEventWakes(bus: Bus, tell: (wake: () => void) => void) {
  const wakesOf = new Map<string, Set<() => void>>();
  /** Orgs whose events the other replicas are told of next, all in one message. */
  const waiting = new Set<string>();
  let timer: NodeJS.Timeout | undefined;

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
      waiting.add(orgId);
      timer ??= setTimeout(() => {
        timer = undefined;
        for (const one of waiting) bus.broadcast({ kind: "events", orgId: one });
        waiting.clear();
      }, eventsCoalesceMs);
    },
    /** Takes another replica's message; false if the message concerns something else. */
    receive(message: BusMessage): boolean {
      if (message.kind !== "events") return false;
      wake(message.orgId);
      return true;
    },
    wakeAll(): void {
      for (const orgId of wakesOf.keys()) wake(orgId);
    },
    close(): void {
      clearTimeout(timer);
    },
  };
}

/**
 * The feed of runs and turns: their viewers on this replica, and hints of their changes and output.
 *
 * The output of a run or turn appears on the replica that holds the device. A replica with viewers
 * of the work announces its interest to all others (`watch`) and renews the announcement; the
 * holder sends the output to the interested replicas.
 *
 *   device ─▶ output (holder) ──output──▶ receive (interested replica) ─▶ viewers
 */
class WorkFeed {
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

/** A key has both ids, so that no viewer hears of another org's work. */
function keyOf(work: WorkName): string {
  return `${work.workId} ${work.orgId}`;
}

function splitKey(key: string): WorkName {
  const at = key.indexOf(" ");
  return { workId: key.slice(0, at), orgId: key.slice(at + 1) };
}

/** Tells the feed the runs, turns and orgs' logs changed by a commit. */
export function feedSubscriber(feed: Pick<Feed, "workChanged" | "eventsAppended">): Subscriber {
  function changed(of: readonly { orgId: string; workId: string; isEnded?: boolean }[]): void {
    for (const { orgId, workId, isEnded = false } of of) feed.workChanged({ orgId, workId, isEnded });
  }

  function changedWithEvents(of: readonly { orgId: string; workId: string; isEnded?: boolean }[]): void {
    changed(of);
    for (const orgId of new Set(of.map((work) => work.orgId))) feed.eventsAppended(orgId);
  }

  return {
    recorded(runs) {
      for (const orgId of new Set(runs.map((run) => run.orgId))) feed.eventsAppended(orgId);
    },
    settled: (runs) =>
      changedWithEvents(
        runs.map(({ orgId, runId, action }) => ({ orgId, workId: runId, isEnded: action === "finished" })),
      ),
    kept: changedWithEvents,
    moved: (runs) => changedWithEvents(runs.map(({ orgId, runId }) => ({ orgId, workId: runId }))),
    cancelling: changed,
    turnsEnded: (turns) =>
      changedWithEvents(turns.map(({ orgId, turnId }) => ({ orgId, workId: turnId, isEnded: true }))),
    repliesKept: (replies) =>
      changedWithEvents(replies.map(({ orgId, turnId }) => ({ orgId, workId: turnId }))),
    turnsWithdrawn: (turns) => changed(turns.map(({ orgId, turnId }) => ({ orgId, workId: turnId }))),
    asked: (question) => changedWithEvents([question]),
    answered: changedWithEvents,
  };
}
