/** Lets at most `max` pieces of work run at once; the others wait their turn, in order. */
export class Limit {
  readonly #max: number;
  readonly #waitingMax: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(max: number, waitingMax = Number.POSITIVE_INFINITY) {
    this.#max = max;
    this.#waitingMax = waitingMax;
  }

  get isIdle(): boolean {
    return this.#running === 0;
  }

  /** Rejects with the error of `overflow` if as many pieces wait as may wait. */
  async run<T>(work: () => Promise<T>, overflow = () => new Error("too many wait")): Promise<T> {
    if (this.#running < this.#max) this.#running += 1;
    else {
      if (this.#waiting.length >= this.#waitingMax) throw overflow();
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    try {
      return await work();
    } finally {
      // The next work takes the place at once, so that no newer work comes in between.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }
}
