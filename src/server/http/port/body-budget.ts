/**
 * Limits the bytes of requests in memory, over all requests together. A request holds the received
 * bytes of its body until it is answered; a device's stream holds the received bytes of an
 * incomplete message.
 *
 * Beyond the limit, the holder (an address or a token) with the most bytes loses its oldest
 * incomplete request. Holders of few bytes and of short requests lose nothing, however much other
 * holders have.
 */
export type Held = {
  /** The holder: an address, or a token's id. */
  readonly holder: string;
  /** The whole body has been received; the request is being served and ends soon. */
  readonly isWhole: boolean;
  /** Ends the request, which then releases its bytes. */
  cut(): void;
};

export type BodyBudget = {
  /** Counts bytes in (or out, if negative). May cut the given request or others. */
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

  /**
   * The oldest incomplete request of the holder with the most bytes; `newest` if all of its
   * requests are complete.
   */
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
