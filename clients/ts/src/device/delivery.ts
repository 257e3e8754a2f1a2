import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import {
  CompleteRunRequestSchema,
  type Completion,
  type CompletionAck,
  CompletionSchema,
  CompletionVerdict,
  type Incarnation,
} from "../gen/pinion/v1/device_pb.js";
import type { Logger } from "../logger.ts";
import type { Kept, KeptBy, KeptResults } from "../outbox/kept.ts";
import type { Outbox, OutboxEntry, OutboxReading, SetAside } from "../outbox/outbox.ts";
import { fitCompletion } from "./completion.ts";
import { messageOf } from "./errors.ts";
import type { Verdict } from "./events.ts";
import { defaultLimits, type SessionLimits, type Timing } from "./timing.ts";
import { completeRun, type Endpoint, type StreamEnd } from "./transport.ts";

/** Completions that are sent and not acknowledged, at most; the others wait on the disk. */
export const UNACKNOWLEDGED_MAX = 16;
/** Streams that broke, naming our message as the reason, while a completion was on its way: then it goes by unary call. */
const SUSPICIONS_MAX = 2;

interface Parcel {
  readonly entry: OutboxEntry;
  readonly watcher: string;
  /** Kept in memory until the disk has it. */
  unsaved: Completion | undefined;
  /** By the monotonic clock, on the current stream; undefined: not sent on it. */
  sentAt: number | undefined;
  /** Times sent, over all streams. */
  sends: number;
  suspicions: number;
  /** By the monotonic clock: the disk refused it, and is not asked for it before. */
  readableAt: number | undefined;
  /** Being read from the disk, or handed over by unary call. */
  isBusy: boolean;
  /** It was acknowledged before, by another database, and is offered again. */
  kept: Kept | undefined;
}

export interface Acknowledged {
  entry: OutboxEntry;
  watcher: string;
  verdict: Verdict;
  windowId: string;
  message: string;
}

/**
 * Sees to it that every completion reaches the server: from the outbox to the stream, again after a reconnect, again if
 * no acknowledgement comes, by unary call if there is no stream for long. It forgets a completion only when the server
 * has said what became of it.
 */
export class Delivery {
  readonly #outbox: Outbox;
  readonly #kept: KeptResults;
  /** Tokens of kept results that were offered again: the server had forgotten their runs, perhaps. */
  readonly #offered = new Set<string>();
  #by: KeptBy | undefined;
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

  /** What is not acknowledged yet, oldest first. */
  held(): OutboxEntry[] {
    return [...this.#parcels.values()].filter(({ kept }) => !kept).map((parcel) => parcel.entry);
  }

  has(attemptToken: string): boolean {
    const parcel = this.#parcels.get(attemptToken);
    return parcel !== undefined && !parcel.kept;
  }

  /** The server says which database it stores into. Results that another one acknowledged are offered again. */
  storedIn(incarnation: Incarnation | undefined): void {
    if (incarnation === undefined || !/^\d{1,20}$/.test(incarnation.systemIdentifier)) return;
    const { systemIdentifier, timeline } = incarnation;
    if (this.#by?.systemIdentifier === systemIdentifier && this.#by.timeline === timeline) return;
    this.#by = { systemIdentifier, timeline };
    let count = 0;
    for (const kept of this.#kept.list()) if (this.#offer(kept)) count += 1;
    if (count > 0) {
      this.#logger.warn(
        { results: count },
        "the server's database is another one; offering it what was acknowledged before",
      );
    }
    void this.#pump();
  }

  /** Offers a kept result again, unless this very database has acknowledged it. */
  #offer(kept: Kept): boolean {
    if (this.#isOfNow(kept) || this.#parcels.has(kept.attemptToken)) return false;
    const { runId, attemptToken, acknowledgedAtMs: finishedAtMs } = kept;
    this.#parcels.set(attemptToken, { ...parcelOf({ runId, attemptToken, finishedAtMs }, ""), kept });
    this.#offered.add(attemptToken);
    return true;
  }

  /**
   * The result of an attempt that the server assigns as if it had never been: its database forgot the run, and the program
   * must not run twice. Undefined for every other assignment, such as a retry.
   */
  forgottenResult(assignment: {
    runId: string;
    attempt: number;
  }): Promise<Completion | undefined> | undefined {
    const candidates = this.#kept
      .list()
      .filter((kept) => kept.runId === assignment.runId)
      .filter((kept) => !this.#isOfNow(kept) || this.#offered.has(kept.attemptToken));
    return candidates.length === 0 ? undefined : this.#readForgotten(candidates, assignment.attempt);
  }

  async #readForgotten(candidates: readonly Kept[], attempt: number): Promise<Completion | undefined> {
    for (const kept of candidates) {
      const completion = (await this.#kept.read(kept))?.completion;
      const isForgotten = (completion?.reoffer?.attempt ?? 0) >= attempt && !completion?.retryAfter;
      if (isForgotten) return completion;
    }
    return undefined;
  }

  #isOfNow({ by }: Kept): boolean {
    return this.#by?.systemIdentifier === by.systemIdentifier && this.#by.timeline === by.timeline;
  }

  /** Takes a completion on. Resolves when it is durable and, if there is a stream, on its way. */
  async add(completion: Completion, finishedAtMs: number, watcher: string): Promise<void> {
    const { runId, attemptToken } = completion;
    const parcel = parcelOf({ runId, attemptToken, finishedAtMs }, watcher);
    parcel.isBusy = true;
    this.#parcels.set(attemptToken, parcel);
    // A full disk must not cost the result while the network is fine.
    parcel.unsaved = completion;
    await this.#save(parcel);
    parcel.isBusy = false;
    if (this.#parcels.get(attemptToken) === parcel && this.#mayEnterStream(parcel)) {
      this.#hand(parcel, completion);
    }
  }

  /** Why results are in memory alone, if some are: the disk does not take them. No new work is taken meanwhile. */
  get diskProblem(): string | undefined {
    return this.#diskProblem;
  }

  /** Puts a result on the disk, or notes why not; tried again until it works or the result is delivered. */
  async #save(parcel: Parcel): Promise<void> {
    const { unsaved, entry } = parcel;
    if (unsaved === undefined) return;
    try {
      await this.#outbox.put({ completion: unsaved, finishedAtMs: entry.finishedAtMs });
      parcel.unsaved = undefined;
      // It was answered for while it was being written; the removal came before the file.
      if (this.#parcels.get(entry.attemptToken) !== parcel) await this.#removeFile(entry);
    } catch (error) {
      if (this.#diskProblem === undefined) {
        this.#logger.error(
          { runId: entry.runId, error: messageOf(error) },
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

  /** A stream is open: everything that waits may go. `send` answers false if the stream is gone. */
  attach(send: (completion: Completion) => boolean, limits: SessionLimits): void {
    this.#send = send;
    this.#limits = limits;
    this.#arm(this.#timing.ackDeadlineMs / 2);
    void this.#pump();
  }

  /** The stream is gone; what was on its way will be sent again. */
  detach(end: StreamEnd | undefined): void {
    // A dial that came to nothing changes nothing: the wait for the unary call goes on.
    if (this.#send === undefined) return;
    const isBlamed = end?.code === status.INVALID_ARGUMENT || end?.code === status.RESOURCE_EXHAUSTED;
    this.#send = undefined;
    for (const parcel of this.#parcels.values()) {
      if (isBlamed && parcel.sentAt !== undefined) parcel.suspicions += 1;
      parcel.sentAt = undefined;
    }
    this.#arm(this.#timing.unaryAfterMs);
  }

  /** The server asks for it, whatever we sent before. */
  sendAgain(attemptToken: string): void {
    const parcel = this.#parcels.get(attemptToken);
    if (parcel === undefined) return;
    parcel.sentAt = undefined;
    void this.#pump();
  }

  /** The server said what became of a completion. */
  async acknowledge(
    ack: Pick<CompletionAck, "attemptToken" | "verdict" | "windowId" | "message">,
  ): Promise<void> {
    const parcel = this.#parcels.get(ack.attemptToken);
    const verdict = verdicts[ack.verdict];
    if (parcel === undefined || verdict === undefined) return;
    await this.#settle(parcel, verdict, ack);
  }

  /** Resolves when nothing is left, or after `ms`. True if nothing is left. */
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

  /** Sends what is due: never sent on this stream, or sent and not acknowledged for too long. */
  async #pump(): Promise<void> {
    const now = performance.now();
    for (const parcel of this.#parcels.values()) {
      if (parcel.sentAt !== undefined && now - parcel.sentAt >= this.#ackDeadlineMs(parcel)) {
        this.#logger.warn(
          { runId: parcel.entry.runId, sends: parcel.sends },
          "no acknowledgement; sending again",
        );
        parcel.sentAt = undefined;
      }
    }
    // What was never sent goes first: sixteen that nobody acknowledges must not hold up the others.
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
  }

  async #read(parcel: Parcel): Promise<Completion | undefined> {
    if (parcel.unsaved !== undefined) return parcel.unsaved;
    if (parcel.readableAt !== undefined && performance.now() < parcel.readableAt) return undefined;
    parcel.isBusy = true;
    const reading = await this.#readRecord(parcel);
    parcel.isBusy = false;
    // It may have been acknowledged while we read.
    if (this.#parcels.get(parcel.entry.attemptToken) !== parcel) return undefined;
    const { runId } = parcel.entry;
    switch (reading.kind) {
      case "record":
        parcel.readableAt = undefined;
        return reading.record.completion;
      case "unreadable":
        if (parcel.readableAt === undefined) {
          this.#logger.warn(
            { runId, error: reading.problem },
            "cannot read a result; trying again until it works",
          );
        }
        parcel.readableAt = performance.now() + this.#timing.ackDeadlineMs / 2;
        return undefined;
      case "gone":
        this.#logger.warn({ runId }, "a result was removed from the outbox before it was delivered");
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
      if (!parcel.isBusy && !(await this.#handByUnary(parcel))) return;
    }
  }

  /** False if the server could not be asked; then there is no use in asking it about the next one. */
  async #handByUnary(parcel: Parcel): Promise<boolean> {
    const completion = await this.#read(parcel);
    if (completion === undefined) return true;
    parcel.isBusy = true;
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
    if (verdict === undefined) return false;
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
    if (parcel.kept) await this.#confirm(parcel.kept);
    else if (isNotStored(verdict)) await this.#rejectFile(parcel.entry, told.message || verdict);
    else if (!(await this.#keep(parcel.entry))) await this.#removeFile(parcel.entry);
    this.#tellIfFlushed();
    void this.#pump();
  }

  /** Keeps an acknowledged result for a while; false if it is not known by which database, or the disk does not. */
  async #keep(entry: OutboxEntry): Promise<boolean> {
    if (this.#by === undefined) return false;
    try {
      await this.#kept.keep(entry, this.#by);
      // The database may have failed over while it was written.
      for (const kept of this.#kept.list()) if (kept.attemptToken === entry.attemptToken) this.#offer(kept);
      return true;
    } catch (error) {
      this.#logger.warn(
        { runId: entry.runId, error: messageOf(error) },
        "cannot keep an acknowledged result",
      );
      return false;
    }
  }

  /** Whatever the answer was, it is kept for its time; this database is not asked again. */
  async #confirm(kept: Kept): Promise<void> {
    if (this.#by === undefined) return;
    try {
      await this.#kept.confirm(kept, this.#by);
    } catch (error) {
      this.#logger.warn(
        { runId: kept.runId, error: messageOf(error) },
        "cannot note that a result was offered",
      );
    }
  }

  async #rejectFile(entry: OutboxEntry, problem: string): Promise<void> {
    try {
      this.#onSetAside(await this.#outbox.reject(entry, problem));
    } catch (error) {
      this.#logger.warn({ runId: entry.runId, error: messageOf(error) }, "cannot set an outbox file aside");
    }
  }

  async #removeFile(entry: OutboxEntry): Promise<void> {
    try {
      await this.#outbox.remove(entry);
    } catch (error) {
      // It comes back after a restart, and is then acknowledged once more.
      this.#logger.warn({ runId: entry.runId, error: messageOf(error) }, "cannot remove an outbox file");
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
  };
}

/** What is known of the run travels only with what is offered again. */
function asSent({ kept }: Parcel, completion: Completion): Completion {
  if (kept || completion.reoffer === undefined) return completion;
  const { reoffer: _, ...rest } = completion;
  return create(CompletionSchema, rest);
}

/** The server does not have it: it is set aside for a person, and never only deleted. */
const isNotStored = (verdict: Verdict) => verdict === "invalid" || verdict === "unknown";

const verdicts: Record<CompletionVerdict, Verdict | undefined> = {
  // A server newer than we are: keep the completion and ask again.
  [CompletionVerdict.UNSPECIFIED]: undefined,
  [CompletionVerdict.STORED]: "stored",
  [CompletionVerdict.STORED_LATE]: "stored_late",
  [CompletionVerdict.ALREADY_STORED]: "already_stored",
  [CompletionVerdict.SUPERSEDED]: "superseded",
  [CompletionVerdict.UNKNOWN]: "unknown",
  [CompletionVerdict.INVALID]: "invalid",
};

/** Errors of the unary call that are an answer. All others mean: later. */
const unaryVerdicts: Partial<Record<status, Verdict>> = {
  [status.NOT_FOUND]: "unknown",
  [status.INVALID_ARGUMENT]: "invalid",
};
