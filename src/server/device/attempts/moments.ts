/** A callback at a time, in milliseconds since 1970. Without a callback, it was called or removed. */
export type Moment = { readonly at: number; callback: (() => void) | undefined };

/** Moments, the earliest first: a binary heap. */
export class Moments {
  readonly #heap: Moment[] = [];

  first(): Moment | undefined {
    return this.#heap[0];
  }

  add(moment: Moment): void {
    const heap = this.#heap;
    let index = heap.push(moment) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent] as Moment;
      if (above.at <= moment.at) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = moment;
  }

  /** Takes the earliest out. */
  take(): Moment | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length === 0 || !last) return first;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#at(child + 1) < this.#at(child)) child++;
      if (this.#at(child) >= last.at) break;
      heap[index] = heap[child] as Moment;
      index = child;
    }
    heap[index] = last;
    return first;
  }

  clear(): void {
    this.#heap.length = 0;
  }

  #at(index: number): number {
    return (this.#heap[index] as Moment).at;
  }
}
