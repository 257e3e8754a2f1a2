/** Why a device connection cannot go on. A person has to do something; the message says what. */
export type DeviceErrorReason =
  /** The server does not take this token, or not from this installation. */
  | "unauthenticated"
  /** The device was deleted or its token revoked. */
  | "revoked"
  /** The server turned the hello down: this daemon and that server do not fit together. */
  | "incompatible"
  /** Another daemon runs with the same state directory. */
  | "locked"
  /** The state directory cannot be used, or an option makes no sense. */
  | "unusable";

/** A fatal end of a device connection. */
export class DeviceError extends Error {
  override name = "DeviceError";
  readonly reason: DeviceErrorReason;

  constructor(reason: DeviceErrorReason, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.reason = reason;
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether `error` is a system error with this code, for example "ENOENT". */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
