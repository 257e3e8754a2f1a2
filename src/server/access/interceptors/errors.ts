import { randomUUID } from "node:crypto";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { codeOf, Refusal, type RefusalReason } from "../../../errors.ts";
import { isUnavailable } from "../../../store/pg/failures.ts";
import { isFenced, refusalOf } from "../../../store/work/service/org-moves.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { nameOf } from "../rules.ts";
import { BadRequestSchema, RetryInfoSchema } from "./error-details.ts";

const codes: Record<RefusalReason, Code> = {
  invalid_argument: Code.InvalidArgument,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  failed_precondition: Code.FailedPrecondition,
  permission_denied: Code.PermissionDenied,
  unauthenticated: Code.Unauthenticated,
  aborted: Code.Aborted,
  resource_exhausted: Code.ResourceExhausted,
  deadline_exceeded: Code.DeadlineExceeded,
  unavailable: Code.Unavailable,
};

/** Milliseconds: long enough for progress of a failover, short enough for a waiting person. */
const databaseRetryMs = 1_000;
const lostRaceRetryMs = 50;

/** Codes of errors after the caller went away; no defect. */
const normalEnds = new Set([
  "ECONNRESET",
  "EPIPE",
  "ABORT_ERR",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ERR_STREAM_DESTROYED",
  "ERR_HTTP2_STREAM_ERROR",
  "ERR_HTTP2_SESSION_ERROR",
  "ERR_HTTP2_INVALID_STREAM",
]);

/**
 * Converts an error to a status: the only conversion, for interceptors, handlers, streams, and
 * answers without Connect. An unexpected error is logged here, under the id sent to the caller.
 */
export function toConnectError(
  error: unknown,
  call: { log: Logger; rpc: string; signal?: AbortSignal },
): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof Refusal) return fromRefusal(error);
  if (call.signal?.aborted && isNormalEnd(error, call.signal)) {
    return new ConnectError("the call was cancelled", Code.Canceled);
  }
  if (isUnavailable(error)) {
    call.log.warn({ rpc: call.rpc, why: (error as Error).message }, "the database is away");
    return fromRefusal(new Refusal("unavailable", "the database is away", { retryAfterMs: databaseRetryMs }));
  }
  if (isFenced(error)) return fromRefusal(refusalOf({ cell: undefined }));
  switch (sqlState(error)) {
    // serialization_failure and deadlock_detected, after the transaction's own attempts
    case "40001":
    case "40P01":
      return fromRefusal(
        new Refusal("aborted", "others were changing the same", { retryAfterMs: lostRaceRetryMs }),
      );
    // query_canceled: the statement timeout. Asking the same again would only cost the same again.
    case "57014":
      call.log.warn({ rpc: call.rpc, why: (error as Error).message }, "a query took too long");
      return fromRefusal(new Refusal("deadline_exceeded", "the query took too long; narrow the filter"));
    // character_not_in_repertoire and untranslatable_character: PostgreSQL's text has no NUL
    case "22021":
    case "22P05":
      return badText();
    // invalid_text_representation: half a surrogate pair in JSON. For any other type the error is a
    // defect of the server.
    case "22P02":
      if (isOfJson(error)) return badText();
  }
  const id = randomUUID();
  call.log.error({ err: error, rpc: call.rpc, errorId: id }, "internal error");
  return new ConnectError(`internal error, id ${id}`, Code.Internal);
}

function badText(): ConnectError {
  return fromRefusal(
    new Refusal("invalid_argument", "a text of the request holds a NUL character or half a surrogate pair"),
  );
}

/** By the PostgreSQL function that failed, because messages are translated. */
function isOfJson(error: unknown): boolean {
  const routine = (error as { routine?: unknown }).routine;
  return typeof routine === "string" && routine.startsWith("json_");
}

function fromRefusal(refusal: Refusal): ConnectError {
  // A message may quote a cut text: half a character cannot be sent.
  const message = refusal.message.toWellFormed();
  const error = new ConnectError(message, codes[refusal.reason]);
  if (refusal.field !== undefined) {
    error.details.push({
      desc: BadRequestSchema,
      value: { fieldViolations: [{ field: refusal.field, description: message }] },
    });
  }
  if (refusal.cell !== undefined) error.metadata.set("pinion-cell", refusal.cell);
  if (refusal.retryAfterMs !== undefined) {
    error.details.push({
      desc: RetryInfoSchema,
      value: { retryDelay: durationFromMs(refusal.retryAfterMs) },
    });
  }
  return error;
}

function isNormalEnd(error: unknown, signal: AbortSignal): boolean {
  if (error === signal.reason) return true;
  const { name, code } = (error ?? {}) as { name?: unknown; code?: unknown };
  return name === "AbortError" || (typeof code === "string" && normalEnds.has(code));
}

/** PostgreSQL's SQLSTATE, five characters; undefined for other errors. */
function sqlState(error: unknown): string | undefined {
  const code = codeOf(error);
  return code !== undefined && /^[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/**
 * Converts errors of handlers to statuses, also in the middle of a stream, after `next()` has
 * resolved.
 */
export function errorInterceptor(options: { log: Logger }): Interceptor {
  return (next) => async (request) => {
    const convert = (error: unknown): never => {
      throw toConnectError(error, { log: options.log, rpc: nameOf(request.method), signal: request.signal });
    };
    const response = await next(request).catch(convert);
    if (!response.stream) return response;
    return { ...response, message: converting(response.message, convert) };
  };
}

/** The messages of `source`, with its errors converted. */
function converting<T>(source: AsyncIterable<T>, convert: (error: unknown) => never): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const inner = source[Symbol.asyncIterator]();
      const end = inner.return?.bind(inner);
      const fail = inner.throw?.bind(inner);
      return {
        next: () => inner.next().catch(convert),
        ...(end && { return: (value?: unknown) => end(value).catch(convert) }),
        ...(fail && { throw: (error?: unknown) => fail(error).catch(convert) }),
      };
    },
  };
}
