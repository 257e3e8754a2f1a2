import pg from "pg";
import { codeOf } from "../../errors.ts";

/**
 * - 57P01–57P03, 57P05: the server shuts down, crashed, starts up, or ended an idle session
 * - 25006: the server became a standby; 25P03: it ended an idle transaction
 * - 08…: the connection broke; 53…: no disk space, memory or connection left; 58…: the disk failed
 */
const unavailableStates = new Set(["57P01", "57P02", "57P03", "57P05", "25006", "25P03"]);
const unavailableClasses = new Set(["08", "53", "58"]);
const unavailableErrnos = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENETDOWN",
  "ENOTFOUND",
  "EAI_AGAIN",
]);
/** Errors of pg and Kysely without a code. */
const unavailableMessages = [
  "timeout exceeded when trying to connect",
  "timeout expired",
  "query read timeout",
  "connection terminated",
  "not queryable",
  "cannot use a pool after calling end",
  "driver has already been destroyed",
];

/**
 * Whether an error means that the database is away, and not that it refused: the connection was
 * refused, broke, or was ended by the server, or no connection became free in time. The same call
 * may succeed later, here or on another replica; its writes may have been committed or not. A
 * statement's own timeout does not count.
 */
export function isUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = codeOf(error);
  if (code !== undefined) {
    if (unavailableStates.has(code) || unavailableErrnos.has(code)) return true;
    if (error instanceof pg.DatabaseError && unavailableClasses.has(classOf(code))) return true;
  }
  const message = error.message.toLowerCase();
  if (code === undefined && unavailableMessages.some((part) => message.includes(part))) return true;
  if (error instanceof AggregateError && error.errors.some(isUnavailable)) return true;
  return isUnavailable(error.cause);
}

/** data_exception and integrity_constraint_violation: caused by the value itself. */
const finalClasses = new Set(["22", "23"]);

/**
 * Whether the database will refuse the value for ever: the only reason to call a report invalid, or
 * to set a row aside.
 */
export function isFinal(error: unknown): boolean {
  return error instanceof pg.DatabaseError && finalClasses.has(classOf(error.code ?? ""));
}

const refusals = new WeakSet<Error>();

/**
 * Runs a statement that takes the data of a report or of a watcher; a final error of it is the
 * data's, or its work's row's.
 */
export async function takingData<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof Error && isFinal(error)) refusals.add(error);
    throw error;
  }
}

/**
 * Whether a statement that {@link takingData} runs was refused for ever, and not a statement beside
 * it: an event, a notice, the day's partition, the commit.
 */
export function isOfData(error: unknown): boolean {
  return error instanceof Error && refusals.has(error);
}

/**
 * Whether the same call may succeed later without a change: the database is away or has no room,
 * others held locks, or an operator can correct the cause. All database errors except {@link
 * isFinal} count. The final errors are listed, and not the passing ones, because data would be lost
 * by an error missing in a list of passing errors.
 */
export function isPassing(error: unknown): boolean {
  return isUnavailable(error) || (error instanceof pg.DatabaseError && !isFinal(error));
}

/**
 * Classes of errors independent of the statement's data: transaction state, authorisation,
 * contention, cancellation, configuration.
 */
const widespreadClasses = new Set(["25", "26", "28", "40", "55", "57", "F0"]);

/**
 * Whether a single row may have caused a statement's error, so that the other rows are worth a try
 * without it (R9).
 */
export function mayBeOfOneRow(error: unknown): boolean {
  if (isUnavailable(error)) return false;
  if (!(error instanceof pg.DatabaseError)) return true;
  return !widespreadClasses.has(classOf(error.code ?? "")) && !isOutdated(error.code);
}

/** The first two characters of an SQLSTATE. */
const classOf = (code: string) => code.slice(0, 2);

/** feature_not_supported ("cached plan must not change result type"), invalid_sql_statement_name */
export function isOutdated(code: string | undefined): boolean {
  return code === "0A000" || code === "26000";
}

/**
 * A transaction that has to begin anew; its code is serialization_failure (database.transaction).
 */
export class LostRace extends Error {
  readonly code = "40001";
}
