/**
 * A list in step with the server. The list is read once, page by page; later, events name the
 * changed items, and only these are read again. While no view shows the list, changes are only
 * marked, and read at the next view.
 */
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { explainError, isNotFound, isUnreachable } from "./api.ts";

/** Changes within this time in ms are read together. */
const gatherMs = 120;
/**
 * Maximum of changes read singly. More changes cause a read of the whole list, at most every two
 * seconds.
 */
const singlesMax = 20;
const relistEveryMs = 2_000;

export type CollectionState = "empty" | "loading" | "ready" | "failed";

export type Collection<T> = {
  /** In sort order. */
  items: ReadonlySignal<readonly T[]>;
  state: ReadonlySignal<CollectionState>;
  /** Error of the last read of the list. */
  error: ReadonlySignal<string>;
  find(id: string): T | undefined;
  /** Stores an item known to be current. */
  put(item: T): void;
  remove(id: string): void;
  /** Marks an item as changed. */
  touch(id: string): void;
  /** Marks the whole list as changed. */
  resync(): void;
  /** Marks the list as shown until the returned function is called. */
  show(): () => void;
  /** Clears the list. */
  clear(): void;
};

/** Sort key of a name in natural order: without case, and 2 before 10. */
export function naturally(name: string): string {
  return name.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));
}

export function createCollection<T extends object>(source: {
  /** Yields all items, page by page. */
  pages(signal: AbortSignal): AsyncIterable<readonly T[]>;
  get(id: string): Promise<T | undefined>;
  idOf(item: T): string;
  /** Sort key of an item. */
  orderOf(item: T): string;
  isDescending?: boolean;
  /**
   * Other lists show these items by name, so new items are read even while the list is not shown.
   */
  isNamed: boolean;
}): Collection<T> {
  const byId = signal<ReadonlyMap<string, T>>(new Map());
  // A changed item is a new object, so each sort key is computed once.
  const orders = new WeakMap<T, string>();
  const items = computed(() => sorted(byId.value));
  const state = signal<CollectionState>("empty");
  const error = signal("");
  const changed = new Set<string>();
  let isStale = true;
  let shown = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let listing: AbortController | undefined;
  let listedAt = 0;
  let generation = 0;

  function orderOf(item: T): string {
    let order = orders.get(item);
    if (order === undefined) {
      order = source.orderOf(item);
      orders.set(item, order);
    }
    return order;
  }

  function sorted(found: ReadonlyMap<string, T>): T[] {
    const keyed = Array.from(found.values(), (item) => ({ item, order: orderOf(item) }));
    const up = source.isDescending ? -1 : 1;
    keyed.sort((a, b) => (a.order < b.order ? -up : a.order > b.order ? up : 0));
    return keyed.map(({ item }) => item);
  }

  function isWanted(): boolean {
    if (shown > 0) return isStale || changed.size > 0;
    if (!source.isNamed) return false;
    return (isStale && state.value !== "ready") || [...changed].some((id) => !byId.value.has(id));
  }

  function plan(): void {
    if (timer !== undefined || listing || !isWanted()) return;
    const restMs = isStale ? listedAt + relistEveryMs - performance.now() : 0;
    timer = setTimeout(
      () => {
        timer = undefined;
        void (isStale ? list() : getChanged()).finally(plan);
      },
      state.value === "empty" ? 0 : Math.max(gatherMs, restMs),
    );
  }

  async function list(): Promise<void> {
    const mine = new AbortController();
    listing = mine;
    listedAt = performance.now();
    isStale = false;
    changed.clear();
    if (state.value !== "ready") state.value = "loading";
    const isFirst = state.value === "loading";
    const found = new Map<string, T>();
    try {
      for await (const page of source.pages(mine.signal)) {
        for (const item of page) found.set(source.idOf(item), item);
        // The first read shows each page at once; later reads replace the list as a whole.
        if (isFirst) byId.value = new Map(found);
      }
      byId.value = found;
      state.value = "ready";
      error.value = "";
    } catch (failure) {
      if (mine.signal.aborted) return;
      // Only an unreachable server is asked again; other errors, such as a missing permission, stay.
      isStale = isUnreachable(failure);
      error.value = explainError(failure);
      if (state.value !== "ready") state.value = "failed";
    } finally {
      if (listing === mine) listing = undefined;
    }
  }

  async function getChanged(): Promise<void> {
    const ids = [...changed];
    changed.clear();
    const from = generation;
    const found = await Promise.all(
      ids.map((id) =>
        source.get(id).catch((failure: unknown) => {
          if (isNotFound(failure)) return undefined;
          // The stream is broken too, and its return reads all missed changes.
          return byId.value.get(id);
        }),
      ),
    );
    if (from !== generation) return;
    const next = new Map(byId.value);
    for (const [index, id] of ids.entries()) {
      const item = found[index];
      if (item) next.set(id, item);
      else next.delete(id);
    }
    byId.value = next;
  }

  return {
    items,
    state,
    error,
    find: (id) => byId.value.get(id),
    put(item) {
      byId.value = new Map(byId.value).set(source.idOf(item), item);
    },
    remove(id) {
      const next = new Map(byId.value);
      if (next.delete(id)) byId.value = next;
    },
    touch(id) {
      changed.add(id);
      if (changed.size > singlesMax) {
        isStale = true;
        changed.clear();
      }
      plan();
    },
    resync() {
      isStale = true;
      plan();
    },
    show() {
      shown++;
      plan();
      return () => {
        shown--;
      };
    },
    clear() {
      generation++;
      listing?.abort();
      listing = undefined;
      clearTimeout(timer);
      timer = undefined;
      changed.clear();
      isStale = true;
      listedAt = 0;
      byId.value = new Map();
      state.value = "empty";
      error.value = "";
    },
  };
}
