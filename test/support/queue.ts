/** The time limit of a script's wait for an item, in ms. */
const patienceMsDefault = 15_000;

/** A queue of items, and of waiters for matching items. */
export class Queue<T> {
  readonly #name: string;
  readonly #patienceMs: number;
  readonly #items: T[] = [];
  readonly #takers: { accept: (item: T) => boolean; resolve: (item: T) => void }[] = [];

  constructor(name: string, patienceMs = patienceMsDefault) {
    this.#name = name;
    this.#patienceMs = patienceMs;
  }

  put(item: T): void {
    const index = this.#takers.findIndex((taker) => taker.accept(item));
    if (index < 0) this.#items.push(item);
    else this.#takers.splice(index, 1)[0]?.resolve(item);
  }

  take(accept: (item: T) => boolean, describe: () => string): Promise<T> {
    const index = this.#items.findIndex(accept);
    if (index >= 0) return Promise.resolve(this.#items.splice(index, 1)[0] as T);
    return new Promise((resolve, reject) => {
      const taker = {
        accept,
        resolve: (item: T) => {
          clearTimeout(timer);
          resolve(item);
        },
      };
      const timer = setTimeout(() => {
        this.#takers.splice(this.#takers.indexOf(taker), 1);
        reject(new Error(`${this.#name} did not come within ${this.#patienceMs} ms: ${describe()}`));
      }, this.#patienceMs);
      this.#takers.push(taker);
    });
  }
}
