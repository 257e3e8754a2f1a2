/**
 * Runs wait for statements of few items, and PostgreSQL takes longer to plan than to execute them.
 * The large statements of a run's life are long to plan whatever their number of items. So each
 * connection prepares them by name: after the fifth use PostgreSQL keeps the plan, and drops the
 * plan when a table of the statement changes or is analyzed.
 */
import { createHash } from "node:crypto";
import type { Statement } from "./joined.ts";
import { keptSizeOf } from "./values/unnest.ts";

/**
 * Maximum prepared texts of a process, of statements of few items and of many; further texts are
 * planned each time. The code has some dozens; a statement of many items has a text for each set of
 * columns with one value for all.
 */
const namesMax = { few: 200, many: 60 };
const names = new Map<string, string>();
const namesGiven = { few: 0, many: 0 };

/** A text of many items is prepared when it comes again for this number of times. */
const repeatsBefore = 3;
/** Texts whose repeats are counted, at most; the count begins anew after that. */
const countedMax = 200;
const repeats = new Map<string, number>();

/**
 * The statement, with a name if each connection shall prepare it. Not for a pooler, whose
 * connections change.
 */
export function named(statement: Statement): Statement {
  const { text, values } = statement;
  const name = values ? nameOf(text) : undefined;
  return name ? { text, values, name } : statement;
}

function nameOf(text: string): string | undefined {
  const known = names.get(text);
  if (known) return known;
  const size = keptSizeOf(text);
  if (!size || namesGiven[size] >= namesMax[size]) return undefined;
  if (size === "many" && !isRepeated(text)) return undefined;
  const name = `${size}_${createHash("sha256").update(text).digest("hex").slice(0, 24)}`;
  names.set(text, name);
  namesGiven[size]++;
  return name;
}

/** Counts the text, and returns whether it came often enough to be prepared. */
function isRepeated(text: string): boolean {
  const count = (repeats.get(text) ?? 0) + 1;
  if (count > repeatsBefore) {
    repeats.delete(text);
    return true;
  }
  if (repeats.size >= countedMax) repeats.clear();
  repeats.set(text, count);
  return false;
}
