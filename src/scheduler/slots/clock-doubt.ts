import { refuse } from "../../errors.ts";
import type { Db } from "../../store/pg/database.ts";
import * as clockJumps from "../../store/work/watchers/clock-jumps.ts";
import { type Position, positionAfter } from "../schedule/schedule.ts";
import { jumpMsMin } from "./clock.ts";

/**
 * Refuses a transaction that would decide by a time in doubt which slots are due, or where a
 * schedule begins. `now`: the time that the transaction has by the database's clock. Asks the
 * database, where each replica records its readings: also a replica that has not seen the jump yet
 * refuses.
 */
export async function requireSure(tx: Db, now: Date): Promise<void> {
  const doubt = await clockJumps.findDoubt(tx, { now, aheadMs: jumpMsMin });
  if (doubt === "jumped") {
    refuse(
      "failed_precondition",
      "the database's clock jumped, so it is not known which slots are due; `pinion doctor` says more",
    );
  }
  if (doubt === "unchecked") {
    refuse("unavailable", "the database's clock has not been checked yet; try again in a moment", {
      retryAfterMs: 5_000,
    });
  }
}

/** {@link positionAfter}, from a time that {@link requireSure} accepts. */
export async function surePosition(
  tx: Db,
  of: Parameters<typeof positionAfter>[0],
  after: Date,
): Promise<Position | undefined> {
  if (of.schedule !== null) await requireSure(tx, after);
  return positionAfter(of, after);
}
