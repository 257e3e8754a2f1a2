/**
 * A refusal of a request that Pinion understood. The message is for the caller, and says what to
 * do. Only the interceptor in src/server/access/interceptors/errors.ts turns a refusal into a
 * status.
 */
export type RefusalReason =
  | "invalid_argument"
  | "not_found"
  | "already_exists"
  | "failed_precondition"
  | "permission_denied"
  | "unauthenticated"
  | "aborted"
  | "resource_exhausted"
  | "deadline_exceeded"
  | "unavailable";

export class Refusal extends Error {
  override name = "Refusal";
  readonly reason: RefusalReason;
  /** The wrong field of the request, for `invalid_argument`. */
  readonly field: string | undefined;
  /**
   * Milliseconds after which a retry is useful, for `aborted`, `unavailable` and
   * `resource_exhausted`.
   */
  readonly retryAfterMs: number | undefined;
  /** The cell to which the caller's org has moved. */
  readonly cell: string | undefined;

  constructor(
    reason: RefusalReason,
    message: string,
    options: { field?: string; retryAfterMs?: number; cell?: string } = {},
  ) {
    super(message);
    this.reason = reason;
    this.field = options.field;
    this.retryAfterMs = options.retryAfterMs;
    this.cell = options.cell;
  }
}

export function refuse(
  reason: RefusalReason,
  message: string,
  options: { field?: string; retryAfterMs?: number } = {},
): never {
  throw new Refusal(reason, message, options);
}

/**
 * The code of an error of Node ("ENOENT") or PostgreSQL ("40001"); undefined for an error without a
 * code.
 */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
