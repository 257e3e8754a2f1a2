import { create } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import {
  CompleteRunRequestSchema,
  type Completion,
  type CompletionAck,
  type Incarnation,
} from "../../gen/pinion/v1/device_pb.js";
import type { Logger } from "../../logger.ts";
import type { Kept, KeptResults } from "../../outbox/kept.ts";
import type { Outbox, OutboxEntry, SetAside } from "../../outbox/outbox.ts";
import type { Verdict } from "../events.ts";
import { defaultLimits, type SessionLimits, type Timing } from "../timing.ts";
import { completeRun, type Endpoint, type StreamEnd } from "../transport.ts";
import { Waiters } from "../waiters.ts";
import { fitCompletion } from "./completion.ts";
import { forgottenOf, isNamed, mayAnswer, type WorkAttempt } from "./forgotten.ts";
import { type Acknowledgement, KeptOffers, type ToldBy } from "./kept-offers.ts";
import { asSent, countOnTheirWay, isOverdue, type Parcel, parcelOf, parcelOfKept } from "./parcel.ts";
import { ParcelFiles } from "./parcel-files.ts";
import { isNotStored, unaryMeaning, verdicts } from "./verdicts.ts";

/** Maximum of completions sent and not acknowledged; the others wait on disk. */
const UNACKNOWLEDGED_MAX = 16;
/**
 * A completion that was under way while so many streams ended with INVALID_ARGUMENT or
 * RESOURCE_EXHAUSTED goes by unary call.
 */
const SUSPICIONS_MAX = 2;

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
 * A parcel is a completion on its way, with a note of each send. While the disk refuses the write,
 * an unsaved completion is sent from memory. The unary call is used after `unaryAfterMs` without a
 * stream, and for a completion suspected of breaking streams. If the server does not know the run,
 * the completion is sent once more with its run (`bringsItsRun`). Settling keeps the record (see
 * `KeptResults`), or moves a refused record to `rejected/`.
 */
export class Delivery {
  readonly #offers: KeptOffers;
  readonly #files: ParcelFiles;
  readonly #endpoint: Endpoint;
  readonly #timing: Timing;
  readonly #logger: Logger;
  readonly #onAcknowledged: (acknowledged: Acknowledged) => void;
  readonly #parcels = new Map<string, Parcel>();
  readonly #stopped = new AbortController();
  readonly #waiters = new Waiters();
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
    this.#endpoint = options.endpoint;
    this.#onAcknowledged = options.onAcknowledged;
    const { kept, outbox, logger, timing, onSetAside } = options;
    [this.#logger, this.#timing] = [logger, timing];
    this.#offers = new KeptOffers({
      ...{ kept, logger, safeAfterMs: timing.safeAfterMs },
      send: (one) => this.#sendKept(one),
    });
    this.#files = new ParcelFiles({
      ...{ outbox, logger, parcels: this.#parcels, onSetAside },
      readAgainMs: timing.ackDeadlineMs / 2,
      readKept: (one) => this.#offers.read(one),
    });
    for (const entry of options.entries) this.#parcels.set(entry.attemptToken, parcelOf(entry, ""));
    this.#arm(timing.unaryAfterMs);
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
  storedIn(incarnation: Incarnation | undefined, options: ToldBy): void {
    if (this.#offers.storedIn(incarnation, options)) void this.#pump();
  }

  #sendKept(kept: Kept): boolean {
    if (this.#parcels.has(kept.attemptToken)) return false;
    this.#parcels.set(kept.attemptToken, parcelOfKept(kept));
    return true;
  }

  /**
   * The result of a run assigned again although its program has finished here: the server does not
   * have the result yet, or its database lost the run, perhaps before the server noticed the
   * failover. The program must not run twice. Undefined for every other assignment, such as a
   * retry.
   */
  forgottenResult(assigned: WorkAttempt): Promise<Completion | undefined> | undefined {
    const { workId } = assigned;
    const parcels = [...this.#parcels.values()].filter(({ kept }) => !kept);
    const waiting = parcels.filter(({ entry }) => isNamed(entry.workId, workId));
    const here = waiting.map((parcel) => this.#files.resultOf(parcel));
    const results = [...here, ...this.#offers.ofWork(workId)];
    const own = results.filter((result) => mayAnswer(assigned, result));
    return own.length === 0 ? undefined : forgottenOf(own, assigned);
  }

  /** Adds a completion. Resolves when the completion is durable and, with an open stream, sent. */
  async add(completion: Completion, finishedAtMs: number, watcher: string): Promise<void> {
    const { workId, attemptToken } = completion;
    const parcel = parcelOf({ workId, attemptToken, finishedAtMs }, watcher);
    parcel.isBusy = true;
    this.#parcels.set(attemptToken, parcel);
    // A full disk must not lose the result while the network works.
    parcel.unsaved = completion;
    await this.#files.save(parcel);
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
    return this.#files.diskProblem;
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
   * The server does not know the attempt of a completion that was sent without its run. A
   * completion may have been sent several times before the first answer, so a send with the run may
   * already be on its way.
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
    await this.#waiters.wait(ms);
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
      void this.#files.saveAll();
      void this.#offers.saveAll();
      void (this.#send === undefined ? this.#pumpUnary() : this.#pump());
    }, ms);
    this.#tick.unref();
  }

  #mayEnterStream(parcel: Parcel): boolean {
    return (
      !parcel.isBusy &&
      parcel.suspicions < SUSPICIONS_MAX &&
      countOnTheirWay(this.#parcels.values()) < UNACKNOWLEDGED_MAX
    );
  }

  /**
   * Sends the due completions: not yet sent on this stream, or sent and not acknowledged within the
   * deadline.
   */
  async #pump(): Promise<void> {
    for (const parcel of this.#parcels.values()) {
      if (!isOverdue(parcel, performance.now(), this.#timing)) continue;
      const { entry, sends } = parcel;
      this.#logger.warn({ workId: entry.workId, sends }, "no acknowledgement; sending again");
      parcel.sentAt = undefined;
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

  #hand(parcel: Parcel, completion: Completion): void {
    if (this.#send === undefined || parcel.sentAt !== undefined) return;
    if (!this.#send(fitCompletion(asSent(parcel, completion), this.#limits))) return;
    parcel.sentAt = performance.now();
    parcel.sends += 1;
    if (!parcel.bringsItsRun) parcel.plainSends += 1;
  }

  /** The completion; undefined while the completion cannot be read, or if its file is gone. */
  async #read(parcel: Parcel): Promise<Completion | undefined> {
    const read = await this.#files.read(parcel);
    if (read !== "gone") return read;
    this.#forget(parcel);
    this.#tellIfFlushed();
    return undefined;
  }

  #tellIfFlushed(): void {
    if (this.#parcels.size === 0) this.#waiters.wake();
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
    const { verdict, told, isReached } = unaryMeaning(result);
    if (verdict === undefined) return isReached;
    if (verdict === "unknown" && result.kind !== "answered" && !broughtItsRun) this.#bringRun(parcel);
    else await this.#settle(parcel, verdict, told, { unary: told });
    return true;
  }

  async #settle(
    parcel: Parcel,
    verdict: Verdict,
    told: { windowId: string; message: string },
    { unary }: Pick<Acknowledgement, "unary"> = {},
  ): Promise<void> {
    if (this.#parcels.get(parcel.entry.attemptToken) !== parcel) return;
    this.#forget(parcel);
    const { entry, watcher } = parcel;
    this.#onAcknowledged({ entry, watcher, verdict, windowId: told.windowId, message: told.message });
    const acknowledgement = { unsaved: parcel.unsaved, unary };
    if (parcel.kept) this.#offers.settled(parcel.kept, acknowledgement);
    else if (isNotStored(verdict)) {
      await this.#files.reject(entry, told.message || verdict, parcel.unsaved);
    } else await this.#offers.keep(entry, acknowledgement);
    this.#tellIfFlushed();
    void this.#pump();
  }

  #forget(parcel: Parcel): void {
    this.#parcels.delete(parcel.entry.attemptToken);
  }
}
