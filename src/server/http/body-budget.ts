/**
 * Bytes of requests that are held in memory, bounded over all requests together. A request holds what of its body has come,
 * until it is answered; a device's stream, what has come of a message that is not whole.
 *
 * Beyond the bound the holder with the most (an address, or a token) loses its oldest request that is not whole. Whoever
 * holds little and is done soon is not touched, however much others hold.
 */
export type Held = {
  /** Whose: an address, or a token's id. */
  readonly holder: string;
  /** All of it has come; it is being worked on, and its end is near. */
  readonly isWhole: boolean;
  /** Ends the request, which lets go of what it holds. */
  cut(): void;
};

export type BodyBudget = {
  /** Counts bytes in (or, negative, out). May cut this request or others. */
  hold(held: Held, bytes: number): void;
  release(held: Held): void;
  readonly bytes: number;
};

export function createBodyBudget(options: { bytesMax: number; onCut?: () => void }): BodyBudget {
  const holders = new Map<string, { bytes: number; held: Map<Held, number> }>();
  let total = 0;

  function add(held: Held, bytes: number): void {
    let holder = holders.get(held.holder);
    if (!holder) {
      if (bytes <= 0) return;
      holder = { bytes: 0, held: new Map() };
      holders.set(held.holder, holder);
    }
    const now = Math.max(0, (holder.held.get(held) ?? 0) + bytes);
    const change = now - (holder.held.get(held) ?? 0);
    if (now > 0) holder.held.set(held, now);
    else holder.held.delete(held);
    holder.bytes += change;
    total += change;
    if (holder.held.size === 0) holders.delete(held.holder);
  }

  function release(held: Held): void {
    const bytes = holders.get(held.holder)?.held.get(held);
    if (bytes !== undefined) add(held, -bytes);
  }

  /** The oldest request that is not whole, of whoever holds the most; the newest one if all are whole. */
  function choose(newest: Held): Held {
    const [most] = [...holders.values()].sort((a, b) => b.bytes - a.bytes);
    for (const held of most?.held.keys() ?? []) if (!held.isWhole) return held;
    return newest;
  }

  return {
    hold(held, bytes) {
      add(held, bytes);
      while (bytes > 0 && total > options.bytesMax) {
        const chosen = choose(held);
        release(chosen);
        options.onCut?.();
        chosen.cut();
        if (chosen === held) return;
      }
    },
    release,
    get bytes() {
      return total;
    },
  };
}
