/**
 * Synchronous work that others have written in part (a schema, its patterns), with a limit of time:
 * the event loop has all other work of the process.
 */
import { Script } from "node:vm";

const slot = Symbol.for("pinion.bounded-work");
const script = new Script('globalThis[Symbol.for("pinion.bounded-work")]()');

/**
 * The value of `work`; "late" if it takes more than `msMax` milliseconds, and is then ended
 * wherever it is, also within a regular expression. Costs a quarter of a millisecond: a thread
 * watches.
 */
export function inTime<T>(msMax: number, work: () => T): { value: T } | "late" {
  const holder = globalThis as { [slot]?: () => T };
  holder[slot] = work;
  try {
    return { value: script.runInThisContext({ timeout: msMax }) as T };
  } catch (error) {
    if ((error as { code?: unknown }).code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return "late";
    throw error;
  } finally {
    delete holder[slot];
  }
}
