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
import { columnsOf, noteColumns, type RowReader } from "./columns.ts";

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
  _result: RowReader & { _types: unknown };
  _accumulateRows: boolean;
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
  /** The texts of the statements that are prepared, by their names. */
  parsedStatements: Record<string, string>;
  /** The names of statements sent to be prepared, until the answer. */
  submittedNamedStatements: Record<string, string>;
};

/** What a statement leaves out of its messages. */
type Omitted = { sync: boolean; describe: boolean };

/** Connections on which a statement's own messages do nothing. */
const omitting = new WeakMap<object, object[]>();
const silent = { value() {} };

function lineOf(connection: object, { sync, describe }: Omitted): object {
  if (!sync && !describe) return connection;
  const lines = omitting.get(connection) ?? [];
  omitting.set(connection, lines);
  const at = Number(sync) + 2 * Number(describe);
  lines[at] ??= Object.create(connection, {
    ...(sync ? { sync: silent } : {}),
    ...(describe ? { describe: silent } : {}),
  }) as object;
  return lines[at];
}

/** Sends a member; a prepared statement whose columns are known does not ask for them. */
function submitTo(connection: Line, member: Member, { isAlone }: { isAlone: boolean }): Error | null {
  const { name } = member;
  const columns = name && connection.parsedStatements[name] ? columnsOf(connection, name) : undefined;
  if (columns) {
    Object.assign(member._result, columns);
    member._accumulateRows = true;
  }
  return member.submit(lineOf(connection, { sync: !isAlone, describe: columns !== undefined }));
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
    if (this.#isAlone && first) return submitTo(connection, first, { isAlone: true });
    // Each member would send a Sync of its own; one Sync follows all members.
    connection.stream.cork();
    try {
      for (const member of this.#members) {
        // The member has a value that pg cannot send: PostgreSQL executes the members before, and
        // no member after.
        const refused = submitTo(connection, member, { isAlone: false });
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
    const member = this.#members[this.#at];
    if (member?.name && !columnsOf(connection, member.name)) {
      noteColumns(connection, member.name, member._result);
    }
    member?.handleCommandComplete(message, connection);
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
