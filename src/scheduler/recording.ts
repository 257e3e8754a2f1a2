import { type Db, transaction } from "../store/pg/database.ts";
import { keepPlans } from "../store/pg/plans.ts";
import * as slotRows from "../store/work/watchers/slot-rows.ts";
import type { HeldSeats, Hold } from "./dispatcher.ts";
import type { Doorbell } from "./doorbell.ts";

/** A slot to be recorded, with the pin of its watcher; null: no pin, or the run is placed first. */
export type PlannedSlot = { slot: slotRows.SlotRecord; deviceId: string | null };

/** Reserves the sessions of the replica whose devices may have these runs at once. */
export type Claim = (slots: readonly PlannedSlot[]) => void;

/**
 * Records runs in a transaction, and announces them after the commit. A run that `fn` names to
 * `claim` before it writes the run is claimed by the same statement, if its device's session is on
 * the replica and has room; after the commit the session has the run.
 */
export async function recording<Done extends { written: readonly slotRows.RecordedRun[] }>(
  db: Db,
  { doorbell, hold }: { doorbell: Doorbell; hold?: Hold | undefined },
  fn: (tx: Db, claim: Claim) => Promise<Done>,
): Promise<Done> {
  let seats: HeldSeats | undefined;
  const release = () => {
    seats?.drop();
    seats = undefined;
  };
  let done: Done;
  try {
    done = await transaction(db, async (tx) => {
      // Left from a try that was rolled back.
      release();
      await keepPlans(tx);
      return fn(tx, (slots) => {
        release();
        seats = hold && claimBy(hold, slots);
      });
    });
  } catch (error) {
    release();
    throw error;
  }
  if (done.written.length > 0) doorbell.recorded(done.written);
  seats?.deliver(done.written.filter(slotRows.isClaimed));
  return done;
}

function claimBy(hold: Hold, slots: readonly PlannedSlot[]): HeldSeats {
  const runs = slots.filter(({ slot }) => slot.skipReason === null);
  const seats = hold(runs.map(({ slot, deviceId }) => ({ orgId: slot.orgId, deviceId })));
  runs.forEach(({ slot }, index) => {
    slot.claimant = seats.claimants[index];
  });
  return seats;
}
