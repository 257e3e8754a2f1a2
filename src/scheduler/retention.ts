import type { Logger } from "../log.ts";
import { type Db, transaction } from "../store/database.ts";
import * as replicas from "../store/replicas.ts";
import * as retention from "../store/retention.ts";
import { type Loop, startLoop } from "./loop.ts";

const hourMs = 3_600_000;
/** A replica that has not beaten for this long is taken off the list. */
const deadReplicaMs = 24 * hourMs;

/** One pass; answers how many rows of unpartitioned tables it deleted. */
export async function retainOnce(db: Db, options: { days: number; log: Logger }): Promise<number> {
  const tended = await transaction(db, (tx) => retention.tendPartitions(tx, options.days));
  if (tended && tended.dropped.length > 0) options.log.info({ dropped: tended.dropped }, "dropped old runs");
  await replicas.removeDead(db, deadReplicaMs);
  return retention.deleteOld(db, options.days);
}

/** Starts retention: hourly, and at once again while there is more to delete than one pass takes. */
export function startRetention(options: { db: Db; days: number; log: Logger }): Loop {
  return startLoop({
    name: "retention",
    log: options.log,
    async pass() {
      const deleted = await retainOnce(options.db, options);
      return deleted > 5_000 ? 1_000 : hourMs;
    },
  });
}
