/**
 * The connections of a pool, lent to callers. A connection returns to the pool only in a usable
 * state. Without an idle connection a caller waits for the first returned or new connection.
 * Opening a connection takes ten times as long as most callers keep a connection, and longer under
 * load.
 *
 *   caller ─▶ idle? ─yes─▶ lent ─given back─▶ the caller who has waited longest, or idle
 *               └─no─▶ waits; a connection is opened ─▶ the caller who has waited longest, or idle
 */
import type pg from "pg";
import type { Logger } from "../../telemetry/log.ts";
import type { ClientPool } from "./round-trips.ts";

type Lent = { client: pg.PoolClient; release: (failure?: Error | boolean) => void };

type Waiting = {
  resolve: (lent: Lent) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
  /** Number of connections whose opening had begun before. */
  openings: number;
};

/** The words of pg's own pool. */
const noneInTime = "timeout exceeded when trying to connect";

/** Lends out the connections of a pool. */
export class Lender implements ClientPool {
  readonly #options: LenderOptions;
  readonly #waiting: Waiting[] = [];
  #isOpening = false;
  #openings = 0;

  constructor(options: LenderOptions) {
    this.#options = options;
  }

  get options(): object {
    return this.#options.pool.options;
  }

  /** Number of callers who wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  async connect(): Promise<pg.PoolClient> {
    const { pool } = this.#options;
    const isIdle = this.#waiting.length === 0 && pool.idleCount > pool.waitingCount;
    // A pool that ends rejects with its own error.
    const lent = isIdle || pool.ending ? lentOf(await pool.connect()) : await this.#wait();
    const guarded = (failure?: Error | boolean) => this.#giveBack(lent, failure);
    lent.client.release = guarded;
    return lent.client;
  }

  end(): Promise<void> {
    return this.#options.pool.end();
  }

  #wait(): Promise<Lent> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const at = this.#waiting.findIndex((one) => one.timer === timer);
        if (at >= 0) fail(this.#waiting.splice(at, 1), new Error(noneInTime));
      }, this.#options.timeoutMs);
      timer.unref();
      this.#waiting.push({ resolve, reject, timer, openings: this.#openings });
      this.#openOne();
    });
  }

  /** Opens one connection at a time: most waiting callers get a returned connection. */
  #openOne(): void {
    const { pool, max, log } = this.#options;
    if (this.#isOpening || this.#waiting.length === 0 || pool.totalCount >= max) return;
    this.#isOpening = true;
    const opening = ++this.#openings;
    pool.connect().then(
      (client) => {
        this.#isOpening = false;
        this.#pass(lentOf(client));
        this.#openOne();
      },
      (error: Error) => {
        this.#isOpening = false;
        log?.debug({ err: error }, "no further database connection could be opened");
        // Connections in use are given back, or break.
        if (pool.totalCount > 0) return;
        const first = this.#waiting.findIndex((one) => one.openings >= opening);
        fail(this.#waiting.splice(0, first < 0 ? this.#waiting.length : first), error);
        this.#openOne();
      },
    );
  }

  /** Passes a usable connection on to the first waiting caller. */
  #pass(lent: Lent): void {
    const next = this.#waiting.shift();
    if (!next) {
      lent.release();
      return;
    }
    clearTimeout(next.timer);
    next.resolve(lent);
  }

  #giveBack(lent: Lent, failure: Error | boolean | undefined): void {
    const { doomed, log } = this.#options;
    const { client, release } = lent;
    // Not sound: the server has ended the connection and the end of the socket is on its way, or an
    // answer is outstanding.
    const isSound = !failure && !doomed.has(client) && isReady(client);
    const status = client.getTransactionStatus();
    if (isSound && status === "I") {
      this.#pass(lent);
      return;
    }
    // A failed transaction with an interrupted rollback, or a forgotten transaction: the writes of
    // the next caller would never be committed.
    if (isSound) {
      log?.warn({ status }, "a database connection came back within a transaction and was destroyed");
    }
    release(failure || true);
    this.#openOne();
  }
}

export type LenderOptions = {
  pool: pg.Pool;
  /** Connections that no caller may use again. */
  doomed: WeakSet<object>;
  max: number;
  /** Maximum milliseconds that a caller waits for a connection. */
  timeoutMs: number;
  log: Logger | undefined;
};

const lentOf = (client: pg.PoolClient): Lent => ({ client, release: client.release.bind(client) });

function fail(those: readonly Waiting[], error: Error): void {
  for (const { reject, timer } of those) {
    clearTimeout(timer);
    reject(error);
  }
}

/** Whether the connection is there, and has answered all queries. */
function isReady(client: pg.PoolClient): boolean {
  const { readyForQuery, _queryable } = client as unknown as { readyForQuery: boolean; _queryable: boolean };
  return readyForQuery && _queryable;
}
