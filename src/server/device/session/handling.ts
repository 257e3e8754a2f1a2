import { Refusal } from "../../../errors.ts";
import { isPassing } from "../../../store/pg/failures.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { sleep } from "../../../time/abort.ts";

/** Maximum messages of a device being handled at once; its slots never need more. */
const underWayMax = 256;
/** Milliseconds between tries while the database is away. */
const retryMs = 1_000;

/** The session whose messages are handled. */
export type HandlingOwner = {
  readonly log: Logger;
  /** More messages wait than a device ever needs. */
  flooded(refusal: Refusal): void;
  /** No message is being handled any more. */
  rested(): void;
};

/** The messages of a device that are being handled, until the session ends. */
export class Handling {
  /** Made when something waits, because most sessions never have to. */
  #over: AbortController | undefined;
  #isOver = false;
  readonly #owner: HandlingOwner;
  #underWay = 0;

  constructor(owner: HandlingOwner) {
    this.#owner = owner;
  }

  get isIdle(): boolean {
    return this.#underWay === 0;
  }

  /**
   * Repeats work that fails because the database is away, while the session lives; undefined when
   * the session has ended. The work is tried at least once: a claim may be answered after the
   * session's end and must be given back.
   */
  async whileServed<T>(work: () => Promise<T>): Promise<T | undefined> {
    do {
      try {
        return await work();
      } catch (error) {
        const mayPass = isPassing(error) || (error instanceof Refusal && error.reason === "unavailable");
        if (!mayPass) {
          // A defect of the server, or a row that the database refuses: without an answer, the
          // device sends the message again.
          this.#owner.log.error({ err: error }, "a device's message could not be worked on");
          return undefined;
        }
        if (this.#isOver) return undefined;
        this.#over ??= new AbortController();
        await sleep(retryMs, this.#over.signal);
      }
    } while (!this.#isOver);
    return undefined;
  }

  /** Counts work until its end. */
  track(work: Promise<void>): void {
    this.#underWay += 1;
    if (this.#underWay > underWayMax) {
      const message = `more than ${underWayMax} messages wait for an answer`;
      this.#owner.flooded(new Refusal("resource_exhausted", message, { retryAfterMs: 1_000 }));
    }
    work.then(
      () => this.#done(),
      (error: unknown) => {
        this.#owner.log.error({ err: error }, "a device's message could not be worked on");
        this.#done();
      },
    );
  }

  #done(): void {
    this.#underWay -= 1;
    if (this.isIdle) this.#owner.rested();
  }

  /** The session ends: work that fails is not tried again. */
  stop(): void {
    this.#isOver = true;
    this.#over?.abort();
  }
}
