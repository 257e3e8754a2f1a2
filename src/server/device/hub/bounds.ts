import { Refusal } from "../../../errors.ts";

/** Lets at most `max` pieces of work run at once; the others wait their turn, in order. */
export function createLimit(max: number): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (running >= max) await new Promise<void>((resolve) => waiting.push(resolve));
    else running += 1;
    try {
      return await work();
    } finally {
      // The place passes on without being free in between.
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
}

/**
 * Runs work while the sizes of all running work fit into `max`; refuses more work with
 * `resource_exhausted`.
 */
export function createBudget(max: number): <T>(size: number, work: () => Promise<T>) => Promise<T> {
  let held = 0;
  return (size, work) => {
    if (held + size > max) {
      const message = "too much waits to be stored; send it again";
      return Promise.reject(new Refusal("resource_exhausted", message, { retryAfterMs: 5_000 }));
    }
    held += size;
    const release = () => {
      held -= size;
    };
    const working = work();
    working.then(release, release);
    return working;
  };
}
