/**
 * The deliveries of one hook, side by side. Each locks its hook's row, so a crowd of them would wait in
 * connections of the pool that all other requests need: a few are under way, the others wait here. A
 * hook beyond its rate refuses without a statement until it takes deliveries again.
 */
import { Refusal, refuse } from "../../../errors.ts";

/** Maximum deliveries of a hook under way, and waiting: a burst of a sender that does not try again. */
const underWayMax = 2;
const waitingMax = 500;
/** Milliseconds after which a sender of too many at once may try again. */
const crowdedMs = 1_000;
/** Maximum milliseconds for which a refusal is remembered, and hooks with one; the oldest is forgotten. */
const spentMsMax = 60_000;
const spentMax = 10_000;

export type HookLanes = {
  /** Does the work of a delivery in the hook's lane. Refuses with `resource_exhausted`. */
  within<T>(hookId: string, work: () => Promise<T>): Promise<T>;
};

type Lane = { underWay: number; waiting: (() => void)[] };
type Spent = { until: number; message: string };

export function createHookLanes(now: () => number = () => performance.now()): HookLanes {
  const lanes = new Map<string, Lane>();
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

  async function enter(hookId: string): Promise<Lane> {
    const lane = lanes.get(hookId) ?? { underWay: 0, waiting: [] };
    lanes.set(hookId, lane);
    if (lane.underWay < underWayMax) lane.underWay++;
    else {
      if (lane.waiting.length >= waitingMax)
        refuse("resource_exhausted", "too many deliveries at once", { retryAfterMs: crowdedMs });
      // The delivery that leaves hands its place on.
      await new Promise<void>((resolve) => lane.waiting.push(resolve));
    }
    return lane;
  }

  function leave(hookId: string, lane: Lane): void {
    const next = lane.waiting.shift();
    if (next) next();
    else if (--lane.underWay === 0) lanes.delete(hookId);
  }

  return {
    async within(hookId, work) {
      requireRate(hookId);
      const lane = await enter(hookId);
      try {
        requireRate(hookId);
        return await work();
      } catch (error) {
        if (error instanceof Refusal && error.reason === "resource_exhausted" && !spent.has(hookId))
          noteSpent(hookId, error);
        throw error;
      } finally {
        leave(hookId, lane);
      }
    },
  };
}
