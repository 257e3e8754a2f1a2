import type { HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import type { Ends } from "../../../scheduler/doorbell.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { HeldByServer } from "../../../store/work/attempts/active.ts";
import type { PastVerdict } from "../../../store/work/attempts/completions.ts";
import type { AttemptName, FailurePolicy } from "../../../store/work/attempts/settlements.ts";
import type { Adopted } from "../../../store/work/service/presence.ts";
import type { Logger } from "../../../telemetry/log.ts";

/** An attempt in a hello's list of held attempts. */
export type Held = { workId: string; attemptToken: string; state: HeldAttemptState };

export type Verdict = PastVerdict["verdict"];

/** The transaction that opens a session. */
export type OpeningSession = {
  orgId: string;
  deviceId: string;
  epoch: number;
  sessionId: string;
  ttlMs: number;
  policy: FailurePolicy;
  log?: Logger | undefined;
};

/** The statements of an opening for one kind of work. */
export type Reconciliation = {
  /** Moves attempts to their devices' new sessions. */
  adopt(tx: Db, options: { ttlMs: number; attempts: readonly Adopted[] }): Promise<void>;
  /** The verdicts of attempts that are not active, in order. */
  findVerdicts(tx: Db, attempts: readonly AttemptName[]): Promise<readonly Verdict[]>;
  /** The device is about to send the results of attempts that were taken away. */
  awaitResults(tx: Db, orgId: string, attempts: readonly Held[]): Promise<void>;
  /**
   * Ends attempts that the device no longer holds; an attempt that never reached the device waits
   * again. An attempt that the database refuses to end stays unchanged; the session opens all the
   * same (R9). `append` writes the events, as the last statements of the transaction.
   */
  endMissing(
    tx: Db,
    session: OpeningSession,
    missing: readonly HeldByServer[],
  ): Promise<{ ends: Partial<Ends>; append: () => Promise<void> }>;
};
