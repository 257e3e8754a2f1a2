import { DrainReason } from "#gen/pinion/v1/device_pb.js";
import { Refusal } from "../../../errors.ts";
import { isPassing } from "../../../store/pg/failures.ts";
import type { Logger } from "../../../telemetry/log.ts";

/** An end of a session by the server: the message to the device, and the fate of its turns. */
export type Parting = {
  cause: string;
  reason: DrainReason;
  message: string;
  /** The device's turns go on in its next session. */
  isMoved: boolean;
  /** The stream ends with an error. */
  refusal?: Refusal["reason"];
  /** Milliseconds that the device waits before it connects again; undefined: none. */
  reconnectAfterMs?: number;
  /** The cell to which the device connects next. */
  cell?: string;
};

/**
 * Maximum milliseconds over which the devices of a stopping replica reconnect; a device moved alone
 * waits `moveSpreadMs` at most.
 */
const shutdownSpreadMs = 5_000;
const moveSpreadMs = 200;
/**
 * Maximum share of the TTL over which the devices of a stopping replica reconnect. A device's last
 * heartbeat may be half a TTL old, and after a TTL of silence its attempts count as lost.
 */
const spreadPartOfTtl = 0.25;
/** Milliseconds until the stream of a drained device is cut: 10 s to leave, after its wait. */
export const drainMsMax = 10_000 + shutdownSpreadMs;

/** Milliseconds, at random, that a drained device waits before it connects again. */
export function reconnectAfterMs(reason: DrainReason, ttlMs: number): number {
  const spreadMs = reason === DrainReason.SHUTDOWN ? shutdownSpreadMs : moveSpreadMs;
  return Math.random() * Math.min(spreadMs, spreadPartOfTtl * ttlMs);
}

const revoked = {
  cause: "revoked",
  reason: DrainReason.REVOKED,
  isMoved: false,
  refusal: "unauthenticated",
} as const;

const partings = {
  /** A newer session of the device took over. */
  replaced: {
    ...{ cause: "replaced", reason: DrainReason.REPLACED, isMoved: true },
    message: "a newer connection of this device took over",
  },
  /**
   * The database has the session as ended, while the device is connected: the device is asked to
   * open a new session.
   */
  unseated: {
    ...{ cause: "unseated", reason: DrainReason.UNSPECIFIED, isMoved: true },
    message: "the database holds this connection for ended; connect again",
  },
  /** The device's token has ended. */
  revoked: { ...revoked, message: "the device was deleted or its token revoked; enrol it again" },
  workerRevoked: {
    ...revoked,
    message: "the fleet worker was deleted or its token revoked; start it with a good one",
  },
} as const satisfies Record<string, Parting>;

export type PartingName = "replaced" | "unseated" | "revoked";

export function partingOf(name: PartingName, { isWorker }: { isWorker: boolean }): Parting {
  return name === "revoked" && isWorker ? partings.workerRevoked : partings[name];
}

/** The org has moved to another cell: the device goes on there. */
export const partingTo = (cell: string, ttlMs: number): Parting => ({
  ...{ cause: "drained", reason: DrainReason.UNSPECIFIED, isMoved: true },
  message: `the org moved to the cell ${cell}`,
  ...{ reconnectAfterMs: reconnectAfterMs(DrainReason.UNSPECIFIED, ttlMs), cell },
});

/** The refusal of a hello whose session could not be opened. */
export function refusalOfOpening(error: unknown, log: Logger): Refusal {
  if (error instanceof Refusal) return error;
  if (isPassing(error)) {
    return new Refusal("unavailable", "the database is away; connect again", { retryAfterMs: 5_000 });
  }
  log.error({ err: error }, "a session could not be opened");
  return new Refusal("unavailable", "the session could not be opened; connect again");
}

/** The refusal of a stream whose hello did not come in time. */
export function missedHello(deadlineMs: number): Refusal {
  return new Refusal("deadline_exceeded", `no hello within ${deadlineMs} ms; send it first`);
}

/** The refusal of a stream on which nothing came for the TTL. */
export function fellSilent(ttlMs: number): Refusal {
  return new Refusal("deadline_exceeded", `nothing was received for ${ttlMs} ms; connect again`);
}
