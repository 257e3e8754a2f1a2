/**
 * Fewer round trips for transactions. The beginning of a transaction, its settings, and statements
 * marked {@link inCompany} wait. They are sent together with the next unmarked statement, or with
 * the commit (joined.ts):
 *
 *   transaction:  begin ┐                insert (marked) ┐
 *                       └─▶ first statement ─▶ …         └─▶ commit
 *   statement of a tenant:  begin ─ settings ─ statement ─ commit
 *
 * No caller reads the rows of a waiting statement, or only after the commit ({@link answeredLate}).
 *
 * If a waiting statement fails, the statement that was sent with it rejects with the error. A
 * rollback drops the waiting statements.
 */
import { type Kysely, type PostgresPool, type PostgresPoolClient, sql } from "kysely";
import type pg from "pg";
import { type Statement, sendAlone, sendJoined } from "./joined.ts";
import { named } from "./prepared.ts";
import type { Schema } from "./schema/schema.ts";

const companyMark = "/* in company */";

/**
 * A mark at the beginning of a statement: within a transaction the statement is sent with the next
 * one. For statements whose rows and counts no caller reads, and whose errors no caller catches.
 */
export const inCompany = sql.raw(companyMark);

const lateMark = "/* answered late */";

/**
 * As {@link inCompany}, for a statement whose rows are read after the commit: the array of its rows
 * is empty until the statement has been sent.
 */
export const answeredLate = sql.raw(lateMark);

/** Sends the waiting statements of an open transaction: their answers come before its commit. */
export async function sendWaiting(tx: Kysely<Schema>): Promise<void> {
  await sql`select`.execute(tx);
}

/** Settings at the beginning of each transaction; `isForSingles`: also of each single statement. */
export type Opening = { settings: readonly Statement[]; isForSingles: boolean };

/** The used part of a pool. */
export type ClientPool = { options: object; connect(): Promise<pg.PoolClient>; end(): Promise<void> };

/**
 * The pool for Kysely. The pool recognizes Kysely's statements about transactions by their texts.
 * `openingOf` is called for each caller before a connection is taken, and its result with the
 * connection.
 */
export function savingTrips(
  pool: ClientPool,
  options: { openingOf: () => (client: pg.PoolClient) => Promise<Opening> | Opening; areKept: boolean },
): PostgresPool {
  const saving = {
    options: pool.options,
    async connect(): Promise<PostgresPoolClient> {
      const openingOf = options.openingOf();
      const client = await pool.connect();
      const opening = await openingOf(client);
      return new SavingClient(client, opening, options.areKept) as unknown as PostgresPoolClient;
    },
    end: () => pool.end(),
  };
  return saving as unknown as PostgresPool;
}

const begin: Statement = { text: "start transaction isolation level read committed" };
const commit: Statement = { text: "commit" };

/** A statement that waits; `rows`: the caller's array for its rows. */
type Waiting = Statement & { rows?: unknown[] };

/** A connection, lent to one caller. */
class SavingClient {
  readonly #client: pg.PoolClient;
  readonly #opening: Opening;
  readonly #areKept: boolean;
  /** `begun`: the beginning waits; `open`: it was sent. */
  #transaction: "none" | "begun" | "open" = "none";
  #waiting: Waiting[] = [];

  constructor(client: pg.PoolClient, opening: Opening, areKept: boolean) {
    this.#client = client;
    this.#opening = opening;
    this.#areKept = areKept;
  }

  get #settings(): Statement[] {
    return this.#opening.settings.map((statement) => this.#named(statement));
  }

  #named(statement: Statement): Statement {
    return this.#areKept ? named(statement) : statement;
  }

  get processID(): number {
    return (this.#client as unknown as { processID: number }).processID;
  }

  async query(text: string, values?: unknown[]): Promise<unknown> {
    const statement = this.#named({ text, values });
    if (this.#transaction === "none") return this.#queryOutside(statement);
    if (text === "commit") return this.#commit();
    if (text.startsWith("rollback")) return this.#rollback(text);
    if (text.startsWith(companyMark)) {
      this.#waiting.push(statement);
      return nothing("");
    }
    if (text.startsWith(lateMark)) {
      const answer = nothing("");
      this.#waiting.push({ ...statement, rows: answer.rows });
      return answer;
    }
    return this.#send(statement);
  }

  /** A connection whose caller forgot to end a transaction is not used again. */
  release(failure?: Error | boolean): void {
    this.#client.release(failure || this.#transaction !== "none");
  }

  async #queryOutside(statement: Statement): Promise<unknown> {
    if (isBegin(statement.text)) {
      this.#transaction = "begun";
      this.#waiting = [{ text: statement.text }, ...this.#settings];
      return nothing("BEGIN");
    }
    if (!this.#opening.isForSingles) return sendAlone(this.#client, statement);
    // A failed statement leaves its transaction open; the rollback below ends it.
    this.#transaction = "open";
    const sent = [begin, ...this.#settings, statement, commit];
    try {
      const results = await sendJoined(this.#client, sent);
      this.#transaction = "none";
      return results.at(-2);
    } catch (error) {
      // If the rollback fails too, the connection is not used again.
      await this.#rollback("rollback").catch(() => undefined);
      throw error;
    }
  }

  async #commit(): Promise<unknown> {
    const isEmpty =
      this.#transaction === "begun" && this.#waiting.length === 1 + this.#opening.settings.length;
    const result = isEmpty ? nothing("COMMIT") : await this.#send(commit);
    this.#waiting = [];
    this.#transaction = "none";
    return result;
  }

  async #rollback(text: string): Promise<unknown> {
    // All waiting statements came after the last savepoint, because a savepoint is sent at once.
    this.#waiting = [];
    const result =
      this.#transaction === "begun" ? nothing("ROLLBACK") : await sendAlone(this.#client, { text });
    if (text === "rollback") this.#transaction = "none";
    return result;
  }

  /** Sends a statement of the open transaction, with the waiting statements. */
  async #send(statement: Statement): Promise<unknown> {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#transaction = "open";
    if (waiting.length === 0) return sendAlone(this.#client, statement);
    const results = await sendJoined(this.#client, [...waiting, statement]);
    waiting.forEach(({ rows }, at) => {
      for (const row of (rows && results[at]?.rows) ?? []) rows?.push(row);
    });
    return results.at(-1);
  }
}

/** The result of a statement that waits, or that needs no sending. */
const nothing = (command: string) => ({ command, rowCount: 0, rows: [] as unknown[] });

/**
 * Kysely's own statements about transactions come without parameters, "start transaction …" first.
 */
function isBegin(text: string): boolean {
  return /^(begin|start transaction)\b/.test(text);
}
