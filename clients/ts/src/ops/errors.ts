import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { BadRequestSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";

/** Reasons of failed calls, by name. */
export type PinionErrorReason =
  | "canceled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

const reasons: Record<Code, PinionErrorReason> = {
  [Code.Canceled]: "canceled",
  [Code.Unknown]: "unknown",
  [Code.InvalidArgument]: "invalid_argument",
  [Code.DeadlineExceeded]: "deadline_exceeded",
  [Code.NotFound]: "not_found",
  [Code.AlreadyExists]: "already_exists",
  [Code.PermissionDenied]: "permission_denied",
  [Code.ResourceExhausted]: "resource_exhausted",
  [Code.FailedPrecondition]: "failed_precondition",
  [Code.Aborted]: "aborted",
  [Code.OutOfRange]: "out_of_range",
  [Code.Unimplemented]: "unimplemented",
  [Code.Internal]: "internal",
  [Code.Unavailable]: "unavailable",
  [Code.DataLoss]: "data_loss",
  [Code.Unauthenticated]: "unauthenticated",
};

/**
 * A failed call, with a reason for branching. Thrown by every client of `createClients`. `name`
 * stays "ConnectError": Connect recognizes its own errors by the name and would wrap any other
 * error.
 */
export class PinionError extends ConnectError {
  readonly reason: PinionErrorReason;
  /** The request's invalid field, in the protocol's spelling. */
  readonly field: string | undefined;
  /** The server's delay before a retry, in ms, if given. */
  readonly retryAfterMs: number | undefined;

  /**
   * ConnectError implements `instanceof` by structure, so a plain ConnectError would pass as a
   * PinionError.
   */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return (
      typeof value === "object" &&
      value !== null &&
      Object.prototype.isPrototypeOf.call(PinionError.prototype, value)
    );
  }

  constructor(error: ConnectError) {
    super(error.rawMessage, error.code, error.metadata, undefined, error);
    this.details = error.details;
    this.reason = reasons[error.code] ?? "unknown";
    this.field = error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field;
    const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
    this.retryAfterMs = delay === undefined ? undefined : durationMs(delay);
  }
}

/** Converts any thrown value to a PinionError. */
export function pinionErrorOf(error: unknown): PinionError {
  return error instanceof PinionError ? error : new PinionError(ConnectError.from(error));
}

const is = (code: Code) => (error: unknown) => error instanceof ConnectError && error.code === code;

/** The object does not exist or belongs to another org. */
export const isNotFound = is(Code.NotFound);
export const isAlreadyExists = is(Code.AlreadyExists);
/** The object's state does not allow the call. */
export const isFailedPrecondition = is(Code.FailedPrecondition);
export const isInvalidArgument = is(Code.InvalidArgument);
/** The token is invalid. */
export const isUnauthenticated = is(Code.Unauthenticated);
/** The token lacks the permission. */
export const isPermissionDenied = is(Code.PermissionDenied);
export const isResourceExhausted = is(Code.ResourceExhausted);
/** Another writer was faster: read again and repeat the whole operation. */
export const isAborted = is(Code.Aborted);

const retryable = new Set<Code>([
  Code.Unavailable,
  Code.Aborted,
  Code.ResourceExhausted,
  Code.DeadlineExceeded,
  Code.Unknown,
]);

/**
 * True if the same call may succeed later, on another server or over a new connection. Includes a
 * request sent during the server's shutdown (`internal` with REFUSED_STREAM) and a stream on a
 * reset connection.
 */
export function isRetryable(error: unknown): boolean {
  if (!(error instanceof ConnectError)) return false;
  if (retryable.has(error.code)) return true;
  return (
    error.code === Code.Internal &&
    /REFUSED_STREAM|INTERNAL_ERROR|PROTOCOL_ERROR|ECONN|EPIPE|GOAWAY|closed|hang up/i.test(error.rawMessage)
  );
}

/** Converts the errors of a call to PinionErrors, also in the middle of a stream. */
export const convertErrors: Interceptor = (next) => async (request) => {
  try {
    const response = await next(request);
    return response.stream ? { ...response, message: converted(response.message) } : response;
  } catch (error) {
    throw pinionErrorOf(error);
  }
};

async function* converted<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw pinionErrorOf(error);
  }
}
