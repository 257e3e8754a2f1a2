/** Final reasons for the end of a device connection. The message tells a person the remedy. */
export type DeviceErrorReason =
  /** The server does not accept the token, or not from this installation. */
  | "unauthenticated"
  /** The device was deleted or its token was revoked. */
  | "revoked"
  /** The server refused the hello: versions or configuration do not match. */
  | "incompatible"
  /** Another daemon runs with the same state directory. */
  | "locked"
  /** The state directory cannot be used, or an option is invalid. */
  | "unusable";

/** The final error of a device connection. */
export class DeviceError extends Error {
  override name = "DeviceError";
  readonly reason: DeviceErrorReason;

  constructor(reason: DeviceErrorReason, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.reason = reason;
  }
}

/** Maximum characters of a path in a message: a program may have made a path of any length. */
const PATH_CHARACTERS_MAX = 300;

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const path = "path" in error && typeof error.path === "string" ? error.path : "";
  if (path.length <= PATH_CHARACTERS_MAX) return error.message;
  return error.message.replaceAll(path, `${path.slice(0, PATH_CHARACTERS_MAX)}…`);
}

/** True if `error` is a system error with the given code, for example "ENOENT". */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
