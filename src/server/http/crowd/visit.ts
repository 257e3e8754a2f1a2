import type { createBodyBudget, Held } from "../port/body-budget.ts";

/** What the crowd does to a connection. */
export type Http2Peer = {
  close(): void;
  /** Called once, when a valid token has come over the connection. */
  known(): void;
};

export type Connection = {
  peer: Http2Peer;
  key: string;
  network: string;
  requests: number;
  hasAsked: boolean;
  since: number;
  refusals: number;
  /** Number of requests received in part. */
  incomplete: number;
  isKnown: boolean;
};

type VisitOptions = {
  holder: string;
  connection: Connection | undefined;
  since: number;
  /** The request, and how it is cut: a function that requests share. */
  asked: object;
  cut: (asked: never) => void;
};

/** A request, from its headers to its end. */
export class Visit implements Held {
  holder: string;
  isWhole = false;
  isKnown = false;
  /** Messages may arrive until the stream ends; a stream is never complete before. */
  isStream = false;
  readonly since: number;
  readonly #crowd: CrowdInside;
  readonly #connection: Connection | undefined;
  readonly #asked: object;
  readonly #cut: (asked: never) => void;

  constructor(crowd: CrowdInside, options: VisitOptions) {
    this.#crowd = crowd;
    this.holder = options.holder;
    this.since = options.since;
    this.#connection = options.connection;
    this.#asked = options.asked;
    this.#cut = options.cut;
  }

  /** A good token was shown. */
  recognise(tokenId: string): void {
    if (this.isKnown) return;
    const bytes = this.#bytes;
    this.release();
    this.isKnown = true;
    this.holder = tokenId;
    this.#crowd.recognised(this, this.#connection);
    this.hold(bytes);
  }

  /** No good token was shown. */
  judgeStranger(): void {
    if (!this.isKnown) this.#crowd.strange(this);
  }

  #bytes = 0;

  /** Raises the request's bytes in memory to at least `bytes`. May cut the request. */
  holdAtLeast(bytes: number): void {
    if (bytes > this.#bytes) this.hold(bytes - this.#bytes);
  }

  /** Sets the request's bytes in memory to `bytes`. May cut the request. */
  holdExactly(bytes: number): void {
    this.hold(bytes - this.#bytes);
  }

  /** Adds `bytes` (negative: subtracts) to the request's bytes in memory. May cut the request. */
  hold(bytes: number): void {
    if (bytes === 0) return;
    this.#bytes += bytes;
    this.#crowd.budgetOf(this).hold(this, bytes);
  }

  release(): void {
    this.#bytes = 0;
    this.#crowd.budgetOf(this).release(this);
  }

  /** Marks the body as received completely. */
  whole(): void {
    this.isWhole = true;
    this.#crowd.settled(this, this.#connection);
  }

  /** Marks the request as answered or gone. */
  end(): void {
    this.isWhole = true;
    this.release();
    this.#crowd.ended(this, this.#connection);
  }

  cut(): void {
    this.#cut(this.#asked as never);
  }
}

export type CrowdInside = {
  recognised(visit: Visit, connection: Connection | undefined): void;
  strange(visit: Visit): void;
  settled(visit: Visit, connection: Connection | undefined): void;
  ended(visit: Visit, connection: Connection | undefined): void;
  budgetOf(visit: Visit): ReturnType<typeof createBodyBudget>;
};
