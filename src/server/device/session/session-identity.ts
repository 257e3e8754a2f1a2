import type { Logger } from "../../../telemetry/log.ts";
import type { Principal } from "../../access/principal.ts";
import type { Opening } from "../reconcile/reconcile.ts";

/**
 * The identity of a session: the org and the token of its stream, and, once its hello has been
 * reconciled, the device, the epoch and the id.
 */
export class SessionIdentity {
  readonly orgId: string;
  readonly tokenId: string;
  /** Opened with a service's token: the hello names the worker. */
  readonly isWorker: boolean;
  readonly #rootLog: Logger;
  #log: Logger | undefined;
  #deviceId: string;
  #kinds: readonly string[] | null = null;
  #epoch = 0;
  #sessionId = "";
  /** The times of the hello and of the welcome, by the monotonic clock in milliseconds. */
  #greetedAt = Number.POSITIVE_INFINITY;
  #openedAt = Number.POSITIVE_INFINITY;

  constructor(principal: Principal, log: Logger) {
    this.orgId = principal.orgId;
    this.tokenId = principal.tokenId;
    this.isWorker = principal.deviceId === null;
    this.#deviceId = principal.deviceId ?? "";
    this.#rootLog = log;
  }

  /** Made at its first use, because an idle session logs nothing. */
  get log(): Logger {
    this.#log ??= this.#rootLog.child({ orgId: this.orgId, deviceId: this.deviceId });
    return this.#log;
  }

  /** Empty for a worker before its hello has been reconciled. */
  get deviceId(): string {
    return this.#deviceId;
  }

  /** A worker's agent kinds; null for a device. */
  get kinds(): readonly string[] | null {
    return this.#kinds;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /**
   * Identifies the session together with its epoch: a failover to a standby that lags may assign an
   * epoch twice.
   */
  get sessionId(): string {
    return this.#sessionId;
  }

  /**
   * Whether the session is newer than another session of the device. A session that was open when
   * the hello of `this` came is older, whatever the epochs: a failover may have reset the epochs.
   * Of two concurrent hellos the epochs decide.
   */
  isNewerThan(other: SessionIdentity): boolean {
    return other.#openedAt <= this.#greetedAt || other.#epoch < this.#epoch;
  }

  /** The hello has come. */
  protected greet(): void {
    this.#greetedAt = performance.now();
  }

  /** The hello has been reconciled. */
  protected identify({ epoch, sessionId, deviceId }: Opening, kinds: readonly string[]): void {
    this.#epoch = epoch;
    this.#sessionId = sessionId;
    this.#openedAt = performance.now();
    if (!this.isWorker) return;
    this.#deviceId = deviceId;
    this.#kinds = kinds;
    this.#log = undefined;
  }
}
