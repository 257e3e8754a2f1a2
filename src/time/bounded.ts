/**
 * Synchronous work that others have written in part (a schema, its patterns, a text in Markdown),
 * with a limit of time: the event loop has all other work of the process.
 */
import { Script } from "node:vm";
import { codeOf } from "../errors.ts";

const slot = Symbol.for("pinion.bounded-work");
/** Default of `lateShare`: an ordinary check needs a hundredth of its time. */
const lateShareDefault = 0.1;
const script = new Script('globalThis[Symbol.for("pinion.bounded-work")]()');

/**
 * The value of `work`, which is ended after `msMax` milliseconds wherever it is, also within a
 * regular expression: "late" if it used the processor for at least `lateShare` of the time, "starved" if
 * other processes of a busy machine had it. Costs a quarter of a millisecond: a thread watches.
 */
export function inTime<T>(
  msMax: number,
  work: () => T,
  lateShare = lateShareDefault,
): { value: T } | "late" | "starved" {
  const holder = globalThis as { [slot]?: () => T };
  holder[slot] = work;
  const before = process.threadCpuUsage();
  try {
    return { value: script.runInThisContext({ timeout: msMax }) as T };
  } catch (error) {
    if (codeOf(error) !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
    const { user, system } = process.threadCpuUsage(before);
    return (user + system) / 1_000 < msMax * lateShare ? "starved" : "late";
  } finally {
    delete holder[slot];
  }
}
