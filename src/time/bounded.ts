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
 * regular expression: "late" if it used the processor for at least `lateShare` of the time,
 * "starved" if other processes of a busy machine had it. Costs a quarter of a millisecond: a thread
 * watches.
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

type BoundedOptions = {
  /** Milliseconds of each try; a further try follows only if other processes had the processor. */
  triesMs: readonly number[];
  lateShare?: number;
  /** Maximum texts that are remembered as too slow. */
  slowMax: number;
};

/** Work on texts that others have written; a text that took too long takes the time only once. */
export class BoundedWork {
  readonly #options: BoundedOptions;
  readonly #slow = new Set<string>();

  constructor(options: BoundedOptions) {
    this.#options = options;
  }

  /** Whether the text is remembered as too slow. */
  isSlow(text: string): boolean {
    return this.#slow.has(text);
  }

  /** Remembers the text as too slow, in the place of the oldest one. */
  noteSlow(text: string): void {
    const [oldest] = this.#slow;
    if (this.#slow.size >= this.#options.slowMax && oldest !== undefined) this.#slow.delete(oldest);
    this.#slow.add(text);
  }

  /** As {@link inTime}, in up to as many tries as the options name: "starved" in each of them. */
  try<T>(work: () => T): ReturnType<typeof inTime<T>> {
    for (const msMax of this.#options.triesMs) {
      const found = inTime(msMax, work, this.#options.lateShare);
      if (found !== "starved") return found;
    }
    return "starved";
  }
}
