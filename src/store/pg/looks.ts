/**
 * Looks of the replica's loops: questions that are nearly always answered with "nothing". Loops
 * wake at common moments (scheduler/loop.ts), and the looks of a moment are one statement.
 */
import { type RawBuilder, sql } from "kysely";
import { createBatcher } from "../../batches/batcher.ts";
import { Refusal } from "../../errors.ts";
import type { Db } from "./database.ts";
import { isUnavailable } from "./failures.ts";
import { onlyRow } from "./values/only-row.ts";
import { ofChangingText } from "./values/unnest.ts";

/** A scalar expression, and its answer from the value that the driver returns. */
export type Look<Answer> = {
  readonly expression: RawBuilder<unknown>;
  read(value: unknown): Answer;
};

export type Looks = {
  /** Asks together with the other looks of the next `gatherMs` milliseconds. */
  ask<Answer>(look: Look<Answer>): Promise<Answer>;
};

/** Milliseconds that a look waits for others: timers for one moment fire within some of these. */
const gatherMs = 10;
/** Looks in one statement, and looks that wait, at most; a replica has some twelve. */
const looksMax = 50;
const waitingMax = 1_000;

/** A look that the database refuses fails alone. */
export function createLooks(db: Db): Looks {
  const batcher = createBatcher<Look<unknown>, unknown>({
    run: (looks) => askAll(db, looks),
    itemsMax: looksMax,
    queueMax: waitingMax,
    gatherMs,
    mayIsolate: (error) => !isUnavailable(error),
    overflow: () => new Refusal("unavailable", "too many looks wait for the database"),
  });
  return {
    async ask(look) {
      return look.read(await batcher.add(look));
    },
  };
}

/** Asks at once, in a statement for each look. */
export function looksAlone(db: Db): Looks {
  return {
    async ask(look) {
      const [value] = await askAll(db, [look]);
      return look.read(value);
    },
  };
}

async function askAll(db: Db, looks: readonly Look<unknown>[]): Promise<unknown[]> {
  const columns = looks.map(({ expression }, index) => sql`(${expression}) as ${sql.id(`look_${index}`)}`);
  const { rows } = await sql<Record<string, unknown>>`${ofChangingText} select ${sql.join(columns)}`.execute(
    db,
  );
  const answers = onlyRow(rows);
  return looks.map((_, index) => answers[`look_${index}`]);
}
