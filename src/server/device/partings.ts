import { DrainReason } from "#gen/pinion/v1/device_pb.js";
import type { Refusal } from "../../errors.ts";

/** An end of a session by the server: what the device is told, and what becomes of its turns. */
export type Parting = {
  cause: string;
  reason: DrainReason;
  message: string;
  /** The device's turns go on in its next session. */
  isMoved: boolean;
  /** The stream ends with an error. */
  refusal?: Refusal["reason"];
};

const revoked = {
  cause: "revoked",
  reason: DrainReason.REVOKED,
  isMoved: false,
  refusal: "unauthenticated",
} as const;

export const partings = {
  replaced: {
    ...{ cause: "replaced", reason: DrainReason.REPLACED, isMoved: true },
    message: "a newer connection of this device took over",
  },
  unseated: {
    ...{ cause: "unseated", reason: DrainReason.UNSPECIFIED, isMoved: true },
    message: "the database holds this connection for ended; connect again",
  },
  revoked: { ...revoked, message: "the device was deleted or its token revoked; enrol it again" },
  workerRevoked: {
    ...revoked,
    message: "the fleet worker was deleted or its token revoked; start it with a good one",
  },
} as const satisfies Record<string, Parting>;
