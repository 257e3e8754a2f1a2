import type { Endings } from "../../../scheduler/endings.ts";
import type { Db } from "../../../store/pg/database.ts";
import * as attempts from "../../../store/work/attempts/attempts.ts";
import type { Telemetry } from "../../telemetry.ts";
import { createAcceptances } from "./acceptances.ts";
import type { Work } from "./work.ts";

type Deps = {
  db: Db;
  endings: Endings;
  telemetry: Pick<Telemetry, "batch">;
};

/** Runs behind the sessions' interface for work. */
export function createRunWork({ db, endings, telemetry }: Deps): Work {
  const acceptances = createAcceptances({ write: (accepted) => attempts.accept(db, accepted), telemetry });
  return {
    accept: (acceptance) => acceptances.add(acceptance),
    report: (report) => endings.report(report),
    settle: (settlement) => endings.settle(settlement),
    beat: (listed) => attempts.beat(db, listed),
    findWaited: (sessions) => attempts.findWaited(db, sessions),
    async idle() {
      await Promise.all([acceptances.idle(), endings.idle()]);
    },
  };
}
