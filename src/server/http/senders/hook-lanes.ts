/**
 * The deliveries of one hook, side by side. Each locks its hook's row, so a crowd of them would
 * wait in connections of the pool that all other requests need: a few are under way, the others
 * wait here. A hook beyond its rate refuses without a statement until it takes deliveries again.
 */
import { Limit } from "../../../batches/limit.ts";
import { Refusal, refuse } from "../../../errors.ts";

/**
 * Maximum deliveries of a hook under way, and waiting: a burst of a sender that does not try again.
 */
const underWayMax = 2;
const waitingMax = 500;
/** Milliseconds after which a sender of too many at once may try again. */
const crowdedMs = 1_000;
/**
 * Maximum milliseconds for which a refusal is remembered, and hooks with one; the oldest is
 * forgotten.
 */
const spentMsMax = 60_000;
const spentMax = 10_000;

export type HookLanes = {
  /** Does the work of a delivery in the hook's lane. Refuses with `resource_exhausted`. */
  within<T>(hookId: string, work: () => Promise<T>): Promise<T>;
};

type Spent = { until: number; message: string };

export function createHookLanes(now: () => number = () => performance.now()): HookLanes {
  const lanes = new Map<string, Limit>();
  const spent = new Map<string, Spent>();

  function requireRate(hookId: string): void {
    const found = spent.get(hookId);
    if (!found) return;
    const retryAfterMs = Math.ceil(found.until - now());
    if (retryAfterMs > 0) refuse("resource_exhausted", found.message, { retryAfterMs });
    spent.delete(hookId);
  }

  function noteSpent(hookId: string, { message, retryAfterMs = 0 }: Refusal): void {
    const [oldest] = spent.keys();
    if (spent.size >= spentMax && oldest !== undefined) spent.delete(oldest);
    spent.set(hookId, { message, until: now() + Math.min(retryAfterMs, spentMsMax) });
  }

  /**
   * Does the work within the hook's rate. A refusal is remembered before the next delivery begins.
   */
  async function atRate<T>(hookId: string, work: () => Promise<T>): Promise<T> {
    requireRate(hookId);
    try {
      return await work();
    } catch (error) {
      if (error instanceof Refusal && error.reason === "resource_exhausted" && !spent.has(hookId))
        noteSpent(hookId, error);
      throw error;
    }
  }

  return {
    async within(hookId, work) {
      requireRate(hookId);
      const lane = lanes.get(hookId) ?? new Limit(underWayMax, waitingMax);
      lanes.set(hookId, lane);
      try {
        return await lane.run(() => atRate(hookId, work), crowded);
      } finally {
        if (lane.isIdle) lanes.delete(hookId);
      }
    },
  };
}

const crowded = () =>
  new Refusal("resource_exhausted", "too many deliveries at once", { retryAfterMs: crowdedMs });
