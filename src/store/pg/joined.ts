/**
 * Statements in one round trip: sent in one write, executed one after another, answered together.
 *
 *   begin ─┬─ set_config … ─┬─ insert … ─┬─ commit ─┬─ Sync
 *          └─ fails: PostgreSQL skips the rest, up to the Sync
 *
 * The statements share one `Sync` of the extended protocol. A "pipeline" of pg would be wrong: a
 * pipeline sends a Sync after each statement, so PostgreSQL would execute a statement after a
 * failed `begin` or a failed change of role.
 */
import pg from "pg";

export type Statement = { text: string; values?: unknown[] | undefined; name?: string | undefined };

type Result = pg.QueryResult;

/**
 * Resolves with a result for each statement; rejects with the error of the first failed statement.
 * PostgreSQL has executed no statement after the failed one.
 */
export function sendJoined(client: pg.ClientBase, statements: readonly Statement[]): Promise<Result[]> {
  return new Promise((resolve, reject) => {
    const joined = new Joined(client, statements, { isAlone: false, callback: tellOnce(resolve, reject) });
    client.query(joined as unknown as pg.Submittable);
  });
}

/**
 * Sends one statement, like `client.query`, but without a leak of `client.query`: pg assigns a new
 * function to a property of its query, and V8 keeps such a function among the old objects. The
 * function would keep the query, its rows and its promise until the next full collection.
 */
export async function sendAlone(client: pg.ClientBase, statement: Statement): Promise<Result | undefined> {
  try {
    const results = await new Promise<Result[]>((resolve, reject) => {
      const joined = new Joined(client, [statement], { isAlone: true, callback: tellOnce(resolve, reject) });
      client.query(joined as unknown as pg.Submittable);
    });
    return results[0];
  } catch (error) {
    // The error's own stack leads to the socket; the new stack leads to the caller.
    Error.captureStackTrace(error as Error);
    throw error;
  }
}

type Callback = (error: Error | null, results?: Result[]) => void;

/** A callback for the first answer. Afterwards the callback keeps no promise. */
function tellOnce(resolve: (results: Result[]) => void, reject: (error: Error) => void): Callback {
  let waiting: { resolve: typeof resolve; reject: typeof reject } | undefined = { resolve, reject };
  return (error, results = []) => {
    const told = waiting;
    waiting = undefined;
    if (error) told?.reject(error);
    else told?.resolve(results);
  };
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

/** Connections on which a statement's own Sync does nothing. */
const withoutSyncs = new WeakMap<object, object>();

function withoutSync(connection: object): object {
  const known = withoutSyncs.get(connection);
  if (known) return known;
  const made = Object.create(connection, { sync: { value() {} } }) as object;
  withoutSyncs.set(connection, made);
  return made;
}

/**
 * One query for the client, made of several statements (the members). Each answer goes to the
 * member whose turn it is. A single statement is sent as pg sends a query.
 * After the end, the object keeps no member and no result.
 */
class Joined {
  /**
   * Milliseconds until a client without an answer gives up: the limit of one statement, times their
   * number.
   */
  readonly query_timeout: number;
  /** The client replaces the callback by a function that stops the timer and calls the callback. */
  callback: Callback;
  readonly #isAlone: boolean;
  #members: Member[];
  #results: Result[] = [];
  #error: Error | undefined;
  #at = 0;

  constructor(
    client: pg.ClientBase,
    statements: readonly Statement[],
    { isAlone, callback }: { isAlone: boolean; callback: Callback },
  ) {
    const { _types, connectionParameters } = client as unknown as Inner;
    this.query_timeout = (connectionParameters.query_timeout || 0) * statements.length;
    this.callback = callback;
    this.#isAlone = isAlone;
    this.#members = statements.map(({ text, values, name }) => {
      const config = {
        ...{ text, values: values ?? [], ...(name ? { name } : {}) },
        ...(isAlone ? {} : { queryMode: "extended" }),
      };
      const member = new pg.Query(config, (error, result) => {
        if (error) this.#error ??= error;
        else this.#results.push(result as unknown as Result);
      }) as unknown as Member;
      member._result._types = _types;
      return member;
    });
  }

  /** The client reads name and text, and notes the prepared statements of the connection. */
  get name(): string | undefined {
    return this.#members[this.#at]?.name;
  }

  get text(): string | undefined {
    return this.#members[this.#at]?.text;
  }

  submit(connection: Line): Error | null {
    const [first] = this.#members;
    if (this.#isAlone && first) return first.submit(connection);
    // Each member would send a Sync of its own; one Sync follows all members.
    const line = withoutSync(connection);
    connection.stream.cork();
    try {
      for (const member of this.#members) {
        // The member has a value that pg cannot send: PostgreSQL executes the members before, and
        // no member after.
        const refused = member.submit(line);
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
    this.#next();
  }

  handleEmptyQuery(connection: object): void {
    this.#members[this.#at]?.handleEmptyQuery(connection);
    this.#next();
  }

  /** A text sent alone may contain several statements; its single member takes all answers. */
  #next(): void {
    if (!this.#isAlone) this.#at++;
  }

  handleError(error: Error, { submittedNamedStatements }: Line): void {
    // PostgreSQL skipped the statements after the failed one, so these are not prepared; the client
    // itself forgets the failed statement.
    for (const { name } of this.#members.slice(this.#at)) if (name) delete submittedNamedStatements[name];
    const told = this.#error ?? error;
    this.#forget();
    this.callback(told);
  }

  handleReadyForQuery(connection: object): void {
    const answered = this.#isAlone ? this.#members : this.#members.slice(0, this.#at);
    for (const member of answered) member.handleReadyForQuery(connection);
    const [error, results] = [this.#error, this.#results];
    this.#forget();
    if (error) this.callback(error);
    else this.callback(null, results);
  }

  #forget(): void {
    this.#members = [];
    this.#results = [];
    this.#error = undefined;
  }
}
