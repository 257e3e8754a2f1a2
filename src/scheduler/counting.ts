import type { Db } from "../store/pg/database.ts";
import { isPassing, isUnavailable } from "../store/pg/failures.ts";
import { countOpenDay } from "../store/work/service/partitions.ts";
import type { Logger } from "../telemetry/log.ts";
import { type Loop, startLoop } from "./loop.ts";
import type { Clock } from "./slots/clock.ts";

/** Milliseconds between two looks at how many ends are counted one by one. */
const everyMs = 60_000;
/** Milliseconds until the next pass while more is left than a pass counts. */
const moreMs = 10_000;

/**
 * Starts the counting of the open day's ends (store/work/service/open-day.ts), by one of the
 * replicas at a time. Nothing is counted while the database's clock is in doubt.
 */
export function startCounting(options: { db: Db; log: Logger; judge?: Pick<Clock, "check"> }): Loop {
  return startLoop({
    name: "counting",
    log: options.log,
    firstAfterMs: everyMs,
    async pass() {
      if ((await options.judge?.check())?.isInDoubt) return everyMs;
      try {
        return (await countOpenDay(options.db)) ? moreMs : everyMs;
      } catch (error) {
        // The next pass counts more.
        if (isPassing(error) && !isUnavailable(error)) return everyMs;
        throw error;
      }
    },
  });
}
