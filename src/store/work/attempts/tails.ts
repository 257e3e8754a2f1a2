import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { storableText } from "../../pg/values/storable.ts";
import { unnest } from "../../pg/values/unnest.ts";
import type { WorkKind } from "./active.ts";
import { outputTailCharacters } from "./settlements.ts";

/** A run or a turn. */
export type Subject = { orgId: string; workId: string; kind: WorkKind };

/** The end of the output of an ended run or turn. */
export type OutputTail = Subject & { text: string };

/**
 * Stores the ends of outputs of ended runs and turns without a result and without an output; others
 * stay unchanged.
 */
export async function keep(db: Db, tails: readonly OutputTail[]): Promise<void> {
  await keepOf(db, "run", tails);
  await keepOf(db, "turn", tails);
}

/** The ended rows of a kind, and the rows among them without a result. */
const endedOf = {
  run: { ended: sql.table("run_finished"), isWithoutResult: sql`f.window_id is null` },
  turn: { ended: sql.table("turn_finished"), isWithoutResult: sql`f.status <> 'completed'` },
} as const satisfies Record<WorkKind, unknown>;

async function keepOf(db: Db, kind: Subject["kind"], all: readonly OutputTail[]): Promise<void> {
  const tails = all.filter((tail) => tail.kind === kind);
  if (tails.length === 0) return;
  const input = unnest("i", tails, {
    org_id: ["text", (t) => t.orgId],
    id: ["uuid", (t) => t.workId],
    tail: ["text", (t) => storableText(t.text.slice(-outputTailCharacters))],
  });
  const { ended, isWithoutResult } = endedOf[kind];
  await sql`
    update ${ended} f set output_tail = i.tail
    from ${input}
    where f.org_id = i.org_id and f.id = i.id and f.output_tail = ''
      and ${isWithoutResult}
      -- The end was a moment ago: partitions of earlier days are not read.
      and f.finished_at > now() - interval '1 day'
  `.execute(db);
}
