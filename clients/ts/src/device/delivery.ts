import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import {
  CompleteRunRequestSchema,
  type Completion,
  type CompletionAck,
  CompletionSchema,
  CompletionVerdict,
  type Incarnation,
  Outcome,
} from "../gen/pinion/v1/device_pb.js";
import type { Logger } from "../logger.ts";
import { type Kept, type KeptBy, type KeptResults, positionOf } from "../outbox/kept.ts";
import type { Outbox, OutboxEntry, OutboxReading, SetAside } from "../outbox/outbox.ts";
import { fitCompletion } from "./completion.ts";
import { messageOf } from "./errors.ts";
import type { Verdict } from "./events.ts";
import { defaultLimits, type SessionLimits, type Timing } from "./timing.ts";
import { completeRun, type Endpoint, type StreamEnd } from "./transport.ts";

/** Maximum of completions sent and not acknowledged; the others wait on disk. */
export const UNACKNOWLEDGED_MAX = 16;
/**
 * Count of streams broken with a status against our message (INVALID_ARGUMENT or
 * RESOURCE_EXHAUSTED) while a completion was on its way, after which the completion goes by unary
 * call.
 */
const SUSPICIONS_MAX = 2;

interface Parcel {
  readonly entry: OutboxEntry;
  readonly watcher: string;
  /** Held in memory until the write to disk succeeds. */
  unsaved: Completion | undefined;
  /**
   * Time of the last send on the current stream, by the monotonic clock; undefined: not sent on
   * this stream.
   */
  sentAt: number | undefined;
  /** Number of sends, over all streams. */
  sends: number;
  suspicions: number;
  /** After a failed read: earliest time of the next read, by the monotonic clock. */
  readableAt: number | undefined;
  /** A read from disk or a unary call is in progress. */
  isBusy: boolean;
  /** Set if another database acknowledged the result before and the result is offered again. */
  kept: Kept | undefined;
  /**
   * The server did not know the attempt: the result is sent once more with its run, which the
   * server's database may have lost.
   */
  bringsItsRun: boolean;
  /**
   * Number of sends without the run on the current stream that have no answer yet: so many verdicts
   * UNKNOWN say nothing about the send with the run.
   */
  plainSends: number;
}

export interface Acknowledged {
  entry: OutboxEntry;
  watcher: string;
  verdict: Verdict;
  windowId: string;
  message: string;
}

/**
 * Delivers every completion from the outbox to the server: over the stream, again after a
 * reconnect, again without an acknowledgement in time, and by unary call after a long time without
 * a stream. A completion is removed only after the server's verdict.
 *
 *   add ──▶ unsaved ──written──▶ stored ──send──▶ sent ──verdict──▶ settled
 *                                  ▲ │             │                  ▲
 *                                  │ │      stream ended, or          │
 *                                  └─┼───── no verdict in time        │
 *                                    └──── unary call ──verdict───────┘
 *
 * While the disk refuses the write, an unsaved completion is sent from memory. The unary call is
 * used after `unaryAfterMs` without a stream, and for a completion suspected of breaking streams.
 * Settling keeps the record (see `KeptResults`), or moves a refused record to `rejected/`.
 */
export class Delivery {
  readonly #outbox: Outbox;
  readonly #kept: KeptResults;
  /**
   * Tokens of kept results offered again, because the server's database may have lost their runs.
   */
  readonly #offered = new Set<string>();
  #by: KeptBy | undefined;
  /** The last position told by the server, in the database `#by`. */
  #position: bigint | undefined;
  readonly #endpoint: Endpoint;
  readonly #timing: Timing;
  readonly #logger: Logger;
  readonly #onAcknowledged: (acknowledged: Acknowledged) => void;
  readonly #onSetAside: (setAside: SetAside) => void;
  readonly #parcels = new Map<string, Parcel>();
  readonly #stopped = new AbortController();
  readonly #waiters = new Set<() => void>();
  #diskProblem: string | undefined;
  #isSaving = false;
  #send: ((completion: Completion) => boolean) | undefined;
  #limits: SessionLimits = defaultLimits;
  #tick: NodeJS.Timeout | undefined;

  constructor(options: {
    outbox: Outbox;
    kept: KeptResults;
    entries: OutboxEntry[];
    endpoint: Endpoint;
    timing: Timing;
    logger: Logger;
    onAcknowledged: (acknowledged: Acknowledged) => void;
    onSetAside: (setAside: SetAside) => void;
  }) {
    this.#outbox = options.outbox;
    this.#kept = options.kept;
    this.#endpoint = options.endpoint;
    this.#timing = options.timing;
    this.#logger = options.logger;
    this.#onAcknowledged = options.onAcknowledged;
    this.#onSetAside = options.onSetAside;
    for (const entry of options.entries) this.#parcels.set(entry.attemptToken, parcelOf(entry, ""));
    this.#arm(this.#timing.unaryAfterMs);
  }

  /** Completions without an acknowledgement, oldest first. */
  held(): OutboxEntry[] {
    return [...this.#parcels.values()].filter(({ kept }) => !kept).map((parcel) => parcel.entry);
  }

  has(attemptToken: string): boolean {
    const parcel = this.#parcels.get(attemptToken);
    return parcel !== undefined && !parcel.kept;
  }

  /**
   * Notes the database in use by the server. Results acknowledged by another database are offered
   * again.
   */
  storedIn(incarnation: Incarnation | undefined, options: { isWelcome: boolean }): void {
    if (incarnation === undefined || !/^\d{1,20}$/.test(incarnation.systemIdentifier)) return;
    const { systemIdentifier, timeline } = incarnation;
    const position = positionOf(incarnation.position);
    const isAnother = this.#by?.systemIdentifier !== systemIdentifier || this.#by.timeline !== timeline;
    this.#by = { systemIdentifier, timeline };
    if (position !== undefined) this.#kept.passed(this.#by, position, options);
    this.#position = position;
    if (!isAnother) return;
    const safe = positionOf(incarnation.safePosition);
    let count = 0;
    for (const kept of this.#kept.list()) {
      if (safe !== undefined && this.#isSafe(kept, safe)) this.#confirm(kept);
      else if (this.#offer(kept)) count += 1;
    }
    if (count > 0) {
      this.#logger.warn(
        { results: count },
        "the server's database is another one; offering it what was acknowledged before",
      );
    }
    void this.#pump();
  }

  /**
   * Whether the new timeline begins after the result was stored. Results of the last minutes are
   * never safe: the server may have seen the promotion late.
   */
  #isSafe(kept: Kept, safe: bigint): boolean {
    const { by, storedBefore, acknowledgedAtMs } = kept;
    return (
      by.systemIdentifier === this.#by?.systemIdentifier &&
      by.timeline + 1 === this.#by.timeline &&
      storedBefore !== undefined &&
      storedBefore <= safe &&
      Date.now() - acknowledgedAtMs > this.#timing.safeAfterMs
    );
  }

  /** Offers a kept result again, unless this same database has acknowledged the result. */
  #offer(kept: Kept): boolean {
    if (this.#isOfNow(kept) || this.#parcels.has(kept.attemptToken)) return false;
    const { workId, attemptToken, acknowledgedAtMs: finishedAtMs } = kept;
    this.#parcels.set(attemptToken, {
      ...parcelOf({ workId, attemptToken, finishedAtMs }, ""),
      ...{ kept, bringsItsRun: true },
    });
    this.#offered.add(attemptToken);
    return true;
  }

  /**
   * The result of a run assigned again although its program has finished here: the server does not
   * have the result yet, or its database lost the run, perhaps before the server noticed the
   * failover. The program must not run twice. Undefined for every other assignment, such as a retry.
   */
  forgottenResult(assignment: {
    workId: string;
    attempt: number;
  }): Promise<Completion | undefined> | undefined {
    const waiting = [...this.#parcels.values()]
      .filter(({ kept, entry }) => !kept && entry.workId === assignment.workId)
      .map((parcel) => async () => {
        if (parcel.unsaved) return parcel.unsaved;
        const reading = await this.#outbox.read(parcel.entry);
        return reading.kind === "record" ? reading.record.completion : undefined;
      });
    const kept = this.#kept
      .list()
      .filter((one) => one.workId === assignment.workId)
      .map((one) => ({
        isLost: !this.#isOfNow(one) || this.#offered.has(one.attemptToken),
        read: async () => (await this.#kept.read(one))?.completion,
      }));
    if (waiting.length + kept.length === 0) return undefined;
    return this.#readForgotten({ waiting, kept }, assignment.attempt);
  }

  async #readForgotten(
    results: {
      waiting: (() => Promise<Completion | undefined>)[];
      kept: { isLost: boolean; read: () => Promise<Completion | undefined> }[];
    },
    attempt: number,
  ): Promise<Completion | undefined> {
    // A later attempt than a failed one is a retry, unless the database lost the failed one.
    const waiting = results.waiting.map((read) => ({ isLost: false, read }));
    for (const { isLost, read } of [...waiting, ...results.kept]) {
      const completion = await read();
      // A completed run has no later attempt, so its result answers any, also in the time between a
      // failover and the server's notice of it.
      if (completion?.outcome === Outcome.COMPLETED) return completion;
      if (!isLost) continue;
      const reoffer = completion?.reoffer ?? completion?.turnReoffer;
      const isForgotten = (reoffer?.attempt ?? 0) >= attempt && !completion?.retryAfter;
      if (isForgotten) return completion;
    }
    return undefined;
  }

  #isOfNow({ by }: Kept): boolean {
    return this.#by?.systemIdentifier === by.systemIdentifier && this.#by.timeline === by.timeline;
  }

  /** Adds a completion. Resolves when the completion is durable and, with an open stream, sent. */
  async add(completion: Completion, finishedAtMs: number, watcher: string): Promise<void> {
    const { workId, attemptToken } = completion;
    const parcel = parcelOf({ workId, attemptToken, finishedAtMs }, watcher);
    parcel.isBusy = true;
    this.#parcels.set(attemptToken, parcel);
    // A full disk must not lose the result while the network works.
    parcel.unsaved = completion;
    await this.#save(parcel);
    parcel.isBusy = false;
    if (this.#parcels.get(attemptToken) === parcel && this.#mayEnterStream(parcel)) {
      this.#hand(parcel, completion);
    }
  }

  /**
   * The disk's error while some results are only in memory; no work is accepted then. Undefined: no
   * error.
   */
  get diskProblem(): string | undefined {
    return this.#diskProblem;
  }

  /**
   * Writes a result to disk, or notes the error; `saveAll` repeats the write until success or
   * delivery.
   */
  async #save(parcel: Parcel): Promise<void> {
    const { unsaved, entry } = parcel;
    if (unsaved === undefined) return;
    try {
      await this.#outbox.put({ completion: unsaved, finishedAtMs: entry.finishedAtMs });
      parcel.unsaved = undefined;
      // An acknowledgement arrived during the write; its removal came before the file existed.
      if (this.#parcels.get(entry.attemptToken) !== parcel) await this.#removeFile(entry);
    } catch (error) {
      if (this.#diskProblem === undefined) {
        this.#logger.error(
          { workId: entry.workId, error: messageOf(error) },
          "cannot write the outbox; results are in memory only, and no new work is taken until the disk takes them",
        );
      }
      this.#diskProblem = messageOf(error);
    }
  }

  async #saveAll(): Promise<void> {
    if (this.#diskProblem === undefined || this.#isSaving) return;
    this.#isSaving = true;
    const unsaved = () => [...this.#parcels.values()].filter((parcel) => parcel.unsaved !== undefined);
    for (const parcel of unsaved()) if (!parcel.isBusy) await this.#save(parcel);
    this.#isSaving = false;
    if (unsaved().length > 0) return;
    this.#diskProblem = undefined;
    this.#logger.info({}, "no result is in memory only any more; new work is taken again");
  }

  /**
   * A stream is open: all waiting completions may go. `send` returns false if the stream is gone.
   */
  attach(send: (completion: Completion) => boolean, limits: SessionLimits): void {
    this.#send = send;
    this.#limits = limits;
    this.#arm(this.#timing.ackDeadlineMs / 2);
    void this.#pump();
  }

  /** The stream is gone; its unacknowledged completions will be sent again. */
  detach(end: StreamEnd | undefined): void {
    // A failed dial changes nothing: the wait for the unary call goes on.
    if (this.#send === undefined) return;
    const isBlamed = end?.code === status.INVALID_ARGUMENT || end?.code === status.RESOURCE_EXHAUSTED;
    this.#send = undefined;
    for (const parcel of this.#parcels.values()) {
      if (isBlamed && parcel.sentAt !== undefined) parcel.suspicions += 1;
      parcel.sentAt = undefined;
      parcel.plainSends = 0;
    }
    this.#arm(this.#timing.unaryAfterMs);
  }

  /** Sends a completion again at the server's request. */
  sendAgain(attemptToken: string): void {
    const parcel = this.#parcels.get(attemptToken);
    if (parcel === undefined) return;
    parcel.sentAt = undefined;
    void this.#pump();
  }

  /** Applies the server's verdict on a completion. */
  async acknowledge(
    ack: Pick<CompletionAck, "attemptToken" | "verdict" | "windowId" | "message">,
  ): Promise<void> {
    const parcel = this.#parcels.get(ack.attemptToken);
    const verdict = verdicts[ack.verdict];
    if (parcel === undefined || verdict === undefined) return;
    const isOfPlainSend = parcel.plainSends > 0 || !parcel.bringsItsRun;
    if (verdict === "unknown" && isOfPlainSend) {
      parcel.plainSends = Math.max(0, parcel.plainSends - 1);
      this.#bringRun(parcel);
      return;
    }
    await this.#settle(parcel, verdict, ack);
  }

  /**
   * The server does not know the attempt of a completion that was sent without its run. A completion
   * may have been sent several times before the first answer, so a send with the run may already be
   * on its way.
   */
  #bringRun(parcel: Parcel): void {
    if (parcel.bringsItsRun) return;
    parcel.bringsItsRun = true;
    parcel.sentAt = undefined;
    void this.#pump();
  }

  /** Resolves when no completion is left, or after `ms`. True if none is left. */
  async flushed(ms: number): Promise<boolean> {
    if (this.#parcels.size === 0) return true;
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#waiters.add(done);
    });
    return this.#parcels.size === 0;
  }

  stop(): void {
    this.#stopped.abort();
    this.#send = undefined;
    clearInterval(this.#tick);
  }

  #arm(ms: number): void {
    clearInterval(this.#tick);
    if (this.#stopped.signal.aborted) return;
    this.#tick = setInterval(() => {
      void this.#saveAll();
      void (this.#send === undefined ? this.#pumpUnary() : this.#pump());
    }, ms);
    this.#tick.unref();
  }

  #mayEnterStream(parcel: Parcel): boolean {
    return !parcel.isBusy && parcel.suspicions < SUSPICIONS_MAX && this.#onTheirWay() < UNACKNOWLEDGED_MAX;
  }

  #onTheirWay(): number {
    let count = 0;
    for (const parcel of this.#parcels.values()) if (parcel.sentAt !== undefined) count += 1;
    return count;
  }

  /**
   * Sends the due completions: not yet sent on this stream, or sent and not acknowledged within the
   * deadline.
   */
  async #pump(): Promise<void> {
    const now = performance.now();
    for (const parcel of this.#parcels.values()) {
      if (parcel.sentAt !== undefined && now - parcel.sentAt >= this.#ackDeadlineMs(parcel)) {
        this.#logger.warn(
          { workId: parcel.entry.workId, sends: parcel.sends },
          "no acknowledgement; sending again",
        );
        parcel.sentAt = undefined;
      }
    }
    // Completions never sent before go first: 16 unacknowledged completions must not block the
    // others.
    const queue = [...this.#parcels.values()].sort((a, b) => a.sends - b.sends);
    for (const parcel of queue) {
      if (this.#send === undefined) return;
      if (parcel.suspicions >= SUSPICIONS_MAX && !parcel.isBusy) void this.#handByUnary(parcel);
      if (parcel.sentAt !== undefined || !this.#mayEnterStream(parcel)) continue;
      const completion = await this.#read(parcel);
      if (completion !== undefined) this.#hand(parcel, completion);
    }
  }

  #ackDeadlineMs(parcel: Parcel): number {
    return Math.min(
      this.#timing.ackDeadlineCapMs,
      this.#timing.ackDeadlineMs * 2 ** Math.max(0, parcel.sends - 1),
    );
  }

  #hand(parcel: Parcel, completion: Completion): void {
    if (this.#send === undefined || parcel.sentAt !== undefined) return;
    if (!this.#send(fitCompletion(asSent(parcel, completion), this.#limits))) return;
    parcel.sentAt = performance.now();
    parcel.sends += 1;
    if (!parcel.bringsItsRun) parcel.plainSends += 1;
  }

  async #read(parcel: Parcel): Promise<Completion | undefined> {
    if (parcel.unsaved !== undefined) return parcel.unsaved;
    if (parcel.readableAt !== undefined && performance.now() < parcel.readableAt) return undefined;
    parcel.isBusy = true;
    const reading = await this.#readRecord(parcel);
    parcel.isBusy = false;
    // An acknowledgement may have arrived during the read.
    if (this.#parcels.get(parcel.entry.attemptToken) !== parcel) return undefined;
    const { workId } = parcel.entry;
    switch (reading.kind) {
      case "record":
        parcel.readableAt = undefined;
        return reading.record.completion;
      case "unreadable":
        if (parcel.readableAt === undefined) {
          this.#logger.warn(
            { workId, error: reading.problem },
            "cannot read a result; trying again until it works",
          );
        }
        parcel.readableAt = performance.now() + this.#timing.ackDeadlineMs / 2;
        return undefined;
      case "gone":
        this.#logger.warn({ workId }, "a result was removed from the outbox before it was delivered");
        this.#forget(parcel);
        break;
      case "set_aside":
        this.#forget(parcel);
        this.#onSetAside(reading.setAside);
        break;
    }
    this.#tellIfFlushed();
    return undefined;
  }

  async #readRecord({ entry, kept }: Parcel): Promise<OutboxReading> {
    if (!kept) return this.#outbox.read(entry);
    const record = await this.#kept.read(kept);
    return record ? { kind: "record", record } : { kind: "gone" };
  }

  #tellIfFlushed(): void {
    if (this.#parcels.size === 0) for (const done of [...this.#waiters]) done();
  }

  async #pumpUnary(): Promise<void> {
    for (const parcel of [...this.#parcels.values()]) {
      if (this.#send !== undefined || this.#stopped.signal.aborted) return;
      // Only a session restores what its database has lost.
      if (parcel.kept) continue;
      if (!parcel.isBusy && !(await this.#handByUnary(parcel))) return;
    }
  }

  /** False if the server could not be reached; the caller then skips the remaining completions. */
  async #handByUnary(parcel: Parcel): Promise<boolean> {
    const completion = await this.#read(parcel);
    if (completion === undefined) return true;
    parcel.isBusy = true;
    const broughtItsRun = parcel.bringsItsRun;
    const request = create(CompleteRunRequestSchema, {
      completion: fitCompletion(asSent(parcel, completion), this.#limits),
    });
    const result = await completeRun(this.#endpoint, request, {
      deadlineMs: this.#timing.unaryDeadlineMs,
      signal: this.#stopped.signal,
    });
    parcel.isBusy = false;
    if (result.kind === "answered") {
      const verdict = verdicts[result.response.verdict];
      if (verdict !== undefined) await this.#settle(parcel, verdict, result.response);
      return true;
    }
    const verdict = unaryVerdicts[result.code];
    // A worker's lost run needs a stream; other completions may go by unary call.
    if (verdict === undefined) return result.code === status.FAILED_PRECONDITION;
    if (verdict === "unknown" && !broughtItsRun) {
      this.#bringRun(parcel);
      return true;
    }
    await this.#settle(parcel, verdict, { windowId: "", message: result.details });
    return true;
  }

  async #settle(
    parcel: Parcel,
    verdict: Verdict,
    told: { windowId: string; message: string },
  ): Promise<void> {
    if (this.#parcels.get(parcel.entry.attemptToken) !== parcel) return;
    this.#forget(parcel);
    this.#onAcknowledged({
      entry: parcel.entry,
      watcher: parcel.watcher,
      verdict,
      windowId: told.windowId,
      message: told.message,
    });
    if (parcel.kept) this.#confirm(parcel.kept, this.#position ?? 0n);
    else if (isNotStored(verdict)) await this.#rejectFile(parcel.entry, told.message || verdict);
    else if (!(await this.#keep(parcel.entry))) await this.#removeFile(parcel.entry);
    this.#tellIfFlushed();
    void this.#pump();
  }

  /**
   * Keeps an acknowledged result for a while. False if the acknowledging database is unknown or the
   * write fails.
   */
  async #keep(entry: OutboxEntry): Promise<boolean> {
    if (this.#by === undefined) return false;
    try {
      await this.#kept.keep(entry, this.#by, this.#position);
      // The database may have failed over during the write.
      for (const kept of this.#kept.list()) if (kept.attemptToken === entry.attemptToken) this.#offer(kept);
      return true;
    } catch (error) {
      this.#logger.warn(
        { workId: entry.workId, error: messageOf(error) },
        "cannot keep an acknowledged result",
      );
      return false;
    }
  }

  /**
   * Keeps the result for the rest of its time after any verdict; this database gets no second
   * offer.
   */
  #confirm(kept: Kept, acknowledgedAt?: bigint): void {
    if (this.#by === undefined) return;
    try {
      this.#kept.confirm(kept, this.#by, acknowledgedAt);
    } catch (error) {
      this.#logger.warn(
        { workId: kept.workId, error: messageOf(error) },
        "cannot note that a result was offered",
      );
    }
  }

  async #rejectFile(entry: OutboxEntry, problem: string): Promise<void> {
    try {
      this.#onSetAside(await this.#outbox.reject(entry, problem));
    } catch (error) {
      this.#logger.warn({ workId: entry.workId, error: messageOf(error) }, "cannot set an outbox file aside");
    }
  }

  async #removeFile(entry: OutboxEntry): Promise<void> {
    try {
      await this.#outbox.remove(entry);
    } catch (error) {
      // The file is sent again after a restart and acknowledged once more.
      this.#logger.warn({ workId: entry.workId, error: messageOf(error) }, "cannot remove an outbox file");
    }
  }

  #forget(parcel: Parcel): void {
    this.#parcels.delete(parcel.entry.attemptToken);
  }
}

function parcelOf(entry: OutboxEntry, watcher: string): Parcel {
  const unsent = { sentAt: undefined, sends: 0, suspicions: 0 };
  return {
    entry,
    watcher,
    ...unsent,
    unsaved: undefined,
    readableAt: undefined,
    isBusy: false,
    kept: undefined,
    bringsItsRun: false,
    plainSends: 0,
  };
}

/** `reoffer` and `turnReoffer` are sent only where the server's database may have lost the work. */
function asSent({ bringsItsRun }: Parcel, completion: Completion): Completion {
  if (bringsItsRun || (completion.reoffer ?? completion.turnReoffer) === undefined) return completion;
  const { reoffer: _, turnReoffer: __, ...rest } = completion;
  return create(CompletionSchema, rest);
}

/**
 * True if the server has not stored the result: the file is then set aside for a person, not
 * deleted.
 */
const isNotStored = (verdict: Verdict) => verdict === "invalid" || verdict === "unknown";

const verdicts: Record<CompletionVerdict, Verdict | undefined> = {
  // Verdict of a newer server: keep the completion and ask again.
  [CompletionVerdict.UNSPECIFIED]: undefined,
  [CompletionVerdict.STORED]: "stored",
  [CompletionVerdict.STORED_LATE]: "stored_late",
  [CompletionVerdict.ALREADY_STORED]: "already_stored",
  [CompletionVerdict.SUPERSEDED]: "superseded",
  [CompletionVerdict.UNKNOWN]: "unknown",
  [CompletionVerdict.INVALID]: "invalid",
};

/**
 * Statuses of the unary call with the meaning of a verdict. All other errors mean: try again later.
 */
const unaryVerdicts: Partial<Record<status, Verdict>> = {
  [status.NOT_FOUND]: "unknown",
  [status.INVALID_ARGUMENT]: "invalid",
};
