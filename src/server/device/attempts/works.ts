import type { Endings } from "../../../scheduler/endings/endings.ts";
import type { Db } from "../../../store/pg/database.ts";
import * as attempts from "../../../store/work/attempts/attempts.ts";
import * as turnAttempts from "../../../store/work/turns/turn-attempts.ts";
import type { Telemetry } from "../../telemetry.ts";
import { createAcceptances } from "./acceptances.ts";
import type { AttemptKind, Work, Works } from "./work.ts";

type Deps = {
  db: Db;
  endings: Readonly<Record<AttemptKind, Endings>>;
  telemetry: Pick<Telemetry, "batch">;
  /** A turn's heartbeat moves its deadline by this time, in milliseconds. */
  ttlMs: number;
};

/** Runs and turns behind the sessions' interface for work. */
export function createWorks({ db, endings, telemetry, ttlMs }: Deps): Works {
  return {
    run: {
      ...takes(endings.run, createAcceptances({ write: (items) => attempts.accept(db, items), telemetry })),
      beat: (listed) => attempts.beat(db, listed),
      findWaited: (sessions) => attempts.findWaited(db, sessions),
    },
    turn: {
      ...takes(
        endings.turn,
        createAcceptances({ write: (items) => turnAttempts.accept(db, items), telemetry }),
      ),
      beat: (listed) => turnAttempts.beat(db, listed, ttlMs),
      findWaited: (sessions) => turnAttempts.findWaited(db, sessions),
    },
  };
}

/** Accepts and settlements, which wait for others of their kind. */
function takes(
  endings: Endings,
  acceptances: ReturnType<typeof createAcceptances>,
): Pick<Work, "accept" | "settle" | "idle"> {
  return {
    accept: (acceptance) => acceptances.add(acceptance),
    settle: (settlement) => endings.settle(settlement),
    async idle() {
      await Promise.all([acceptances.idle(), endings.idle()]);
    },
  };
}
