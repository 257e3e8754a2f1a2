/**
 * Fewer round trips for transactions. The beginning of a transaction, its settings, and statements
 * marked {@link inCompany} wait, and are sent together with the next statement whose answer
 * somebody waits for, the commit at the latest (joined.ts):
 *
 *   transaction:  begin ┐                insert (marked) ┐
 *                       └─▶ first statement ─▶ …         └─▶ commit
 *   statement of a tenant:  begin ─ settings ─ statement ─ commit
 *
 * The rows of a statement that waits are read by nobody, or after the commit ({@link answeredLate}).
 *
 * An error of a statement that waited is the error of the statement that it was sent with. A
 * rollback drops what waits.
 */
import { type Kysely, type PostgresPool, type PostgresPoolClient, sql } from "kysely";
import type pg from "pg";
import { type Statement, sendAlone, sendJoined } from "./joined.ts";
import { named } from "./prepared.ts";
import type { Schema } from "./schema/schema.ts";

const companyMark = "/* in company */";

/**
 * At the beginning of a statement without rows and counts that anybody reads, whose errors nobody
 * catches: within a transaction it is sent with the next statement.
 */
export const inCompany = sql.raw(companyMark);

const lateMark = "/* answered late */";

/**
 * As {@link inCompany}, for a statement whose rows are read after the commit: the array of its rows
 * is empty until the statement has been sent.
 */
export const answeredLate = sql.raw(lateMark);

/** Sends what waits in an open transaction, and so has late answers before its commit. */
export async function sendWaiting(tx: Kysely<Schema>): Promise<void> {
  await sql`select`.execute(tx);
}

/** Settings at the beginning of each transaction, and of each single statement if those need them. */
export type Opening = { settings: readonly Statement[]; isForSingles: boolean };

/** What is used of a pool. */
export type ClientPool = { options: object; connect(): Promise<pg.PoolClient>; end(): Promise<void> };

/**
 * The pool for Kysely, whose statements about transactions it knows by their texts. `openingOf` is
 * asked for each caller, before a connection is taken and with the connection.
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

/** A connection in the hands of one caller. */
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

  /** A connection within a transaction is not used again: it was forgotten. */
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
    // A failed statement leaves its transaction open.
    this.#transaction = "open";
    const sent = [begin, ...this.#settings, statement, commit];
    try {
      const results = await sendJoined(this.#client, sent);
      this.#transaction = "none";
      return results.at(-2);
    } catch (error) {
      // If this fails too, the connection is not used again.
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
    // What waits was asked for after the last savepoint, because that was sent.
    this.#waiting = [];
    const result =
      this.#transaction === "begun" ? nothing("ROLLBACK") : await sendAlone(this.#client, { text });
    if (text === "rollback") this.#transaction = "none";
    return result;
  }

  /** Sends a statement of the open transaction, with what waits. */
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

/** The result of a statement that waits, or need not be sent. */
const nothing = (command: string) => ({ command, rowCount: 0, rows: [] as unknown[] });

/** Kysely's own statements about transactions come without parameters, "start transaction …" first. */
function isBegin(text: string): boolean {
  return /^(begin|start transaction)\b/.test(text);
}
