/**
 * Statements in one round trip: sent in one write, executed one after another, answered together.
 *
 *   begin ─┬─ set_config … ─┬─ insert … ─┬─ commit ─┬─ Sync
 *          └─ fails: PostgreSQL skips all that follow, up to the Sync
 *
 * They share one `Sync` of the extended protocol, and that is why they are no "pipeline" of pg,
 * which sends a Sync after each: behind a `begin` or a change of role that failed, the next
 * statement would be executed without it.
 */
import pg from "pg";

export type Statement = { text: string; values?: unknown[] | undefined; name?: string | undefined };

type Result = pg.QueryResult;

/**
 * Resolves with a result for each statement; rejects with the error of the first that failed. None
 * behind the failed statement was executed.
 */
export function sendJoined(client: pg.ClientBase, statements: readonly Statement[]): Promise<Result[]> {
  return new Promise((resolve, reject) => {
    const joined = new Joined(client, statements, (error, results) =>
      error ? reject(error) : resolve(results ?? []),
    );
    client.query(joined as unknown as pg.Submittable);
  });
}

/** The parts of pg's own query that its declarations lack. */
type Member = {
  readonly name?: string;
  readonly text: string;
  _result: { _types: unknown };
  submit(connection: object): Error | null;
  handleReadyForQuery(connection: object): void;
  handleError(error: Error, connection: object): void;
} & Record<Handler, (...args: unknown[]) => void>;

type Handler = "handleRowDescription" | "handleDataRow" | "handleCommandComplete" | "handleEmptyQuery";

/** The parts of a client that its declarations lack. */
type Inner = { _types: unknown; connectionParameters: { query_timeout?: number | false } };

/** The parts of a connection that its declarations lack. */
type Line = {
  stream: { cork(): void; uncork(): void };
  sync(): void;
  /** The names of statements sent to be prepared, until the answer. */
  submittedNamedStatements: Record<string, string>;
};

/** A query in the eyes of the client: it hands each answer to the statement whose turn it is. */
class Joined {
  /** Milliseconds until a client without an answer gives up: each statement has its own limit. */
  readonly query_timeout: number;
  /** Replaced by the client, which stops its timer first. */
  callback: (error: Error | null, results?: Result[]) => void;
  readonly #members: Member[];
  readonly #results: Result[] = [];
  #error: Error | undefined;
  #at = 0;

  constructor(client: pg.ClientBase, statements: readonly Statement[], callback: Joined["callback"]) {
    const { _types, connectionParameters } = client as unknown as Inner;
    this.query_timeout = (connectionParameters.query_timeout || 0) * statements.length;
    this.callback = callback;
    this.#members = statements.map(({ text, values, name }) => {
      const config = { text, values: values ?? [], queryMode: "extended", ...(name ? { name } : {}) };
      const member = new pg.Query(config, (error, result) => {
        if (error) this.#error ??= error;
        else this.#results.push(result as unknown as Result);
      }) as unknown as Member;
      member._result._types = _types;
      return member;
    });
  }

  /** Read by the client to note which statement the connection has prepared. */
  get name(): string | undefined {
    return this.#members[this.#at]?.name;
  }

  get text(): string | undefined {
    return this.#members[this.#at]?.text;
  }

  submit(connection: Line): Error | null {
    // Members end with a Sync each; only the last counts.
    const withoutSync = Object.create(connection, { sync: { value() {} } }) as object;
    connection.stream.cork();
    try {
      for (const member of this.#members) {
        // A value that cannot be sent: what comes before it is executed, what follows is not.
        const refused = member.submit(withoutSync);
        if (refused) this.#error ??= refused;
        if (this.#error) break;
      }
      connection.sync();
    } finally {
      connection.stream.uncork();
    }
    return null;
  }

  handleRowDescription(message: unknown): void {
    this.#members[this.#at]?.handleRowDescription(message);
  }

  handleDataRow(message: unknown): void {
    this.#members[this.#at]?.handleDataRow(message);
  }

  handleCommandComplete(message: unknown, connection: object): void {
    this.#members[this.#at]?.handleCommandComplete(message, connection);
    this.#at++;
  }

  handleEmptyQuery(connection: object): void {
    this.#members[this.#at]?.handleEmptyQuery(connection);
    this.#at++;
  }

  handleError(error: Error, { submittedNamedStatements }: Line): void {
    // PostgreSQL skipped the statements behind, which are not prepared; the client forgets the failed one.
    for (const { name } of this.#members.slice(this.#at)) if (name) delete submittedNamedStatements[name];
    this.callback(this.#error ?? error);
  }

  handleReadyForQuery(connection: object): void {
    for (const member of this.#members.slice(0, this.#at)) member.handleReadyForQuery(connection);
    if (this.#error) this.callback(this.#error);
    else this.callback(null, this.#results);
  }
}
