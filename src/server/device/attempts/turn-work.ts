import type { Endings } from "../../../scheduler/endings.ts";
import type { Db } from "../../../store/pg/database.ts";
import * as turnAttempts from "../../../store/work/turns/turn-attempts.ts";
import type { Telemetry } from "../../telemetry.ts";
import { createAcceptances } from "./acceptances.ts";
import type { Work } from "./work.ts";

type Deps = {
  db: Db;
  endings: Endings;
  ttlMs: number;
  telemetry: Pick<Telemetry, "batch">;
};

/** Turns behind the sessions' interface for work. */
export function createTurnWork({ db, endings, ttlMs, telemetry }: Deps): Work {
  const acceptances = createAcceptances({
    write: (accepted) => turnAttempts.accept(db, accepted),
    telemetry,
  });
  return {
    accept: (acceptance) => acceptances.add(acceptance),
    report: (report) => endings.report(report),
    settle: (settlement) => endings.settle(settlement),
    beat: (listed) => turnAttempts.beat(db, listed, ttlMs),
    findWaited: (sessions) => turnAttempts.findWaited(db, sessions),
    async idle() {
      await Promise.all([acceptances.idle(), endings.idle()]);
    },
  };
}
