/**
 * A list that is kept as it is on the server. It is read once, page by page; after that events name what has changed, and
 * only that is read again. While nobody looks at the list it is only marked, and read when somebody does.
 */
import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { explainError, isNotFound, isUnreachable } from "./api.ts";

/** Changes within this time are read together. */
const gatherMs = 120;
/** More changes than this are read as a whole list, and that not more often than every two seconds. */
const singlesMax = 20;
const relistEveryMs = 2_000;

export type CollectionState = "empty" | "loading" | "ready" | "failed";

export type Collection<T> = {
  /** In their order. */
  items: ReadonlySignal<readonly T[]>;
  state: ReadonlySignal<CollectionState>;
  /** Why the list could not be read. */
  error: ReadonlySignal<string>;
  find(id: string): T | undefined;
  /** Takes what is known to be the latest. */
  put(item: T): void;
  remove(id: string): void;
  /** These have changed. */
  touch(id: string): void;
  /** Anything may have changed. */
  resync(): void;
  /** Somebody looks at the list, until the returned function is called. */
  show(): () => void;
  /** Forgets everything. */
  clear(): void;
};

/** A text by which names sort as people expect: whatever the case, and 2 before 10. */
export function naturally(name: string): string {
  return name.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(12, "0"));
}

export function createCollection<T extends object>(source: {
  /** Everything, page by page. */
  pages(signal: AbortSignal): AsyncIterable<readonly T[]>;
  get(id: string): Promise<T | undefined>;
  idOf(item: T): string;
  /** Items are sorted by this text. */
  orderOf(item: T): string;
  isDescending?: boolean;
  /** Other lists show these by name, so new ones are read even while nobody looks at this list. */
  isNamed: boolean;
}): Collection<T> {
  const byId = signal<ReadonlyMap<string, T>>(new Map());
  // An item that changes is another object, so what it is sorted by is worked out once for each.
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
        // A long list is shown as far as it has come; a list that is there is replaced as a whole.
        if (isFirst) byId.value = new Map(found);
      }
      byId.value = found;
      state.value = "ready";
      error.value = "";
    } catch (failure) {
      if (mine.signal.aborted) return;
      // Whoever may not read the list need not ask again and again.
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
          // The stream will have broken as well, and its return brings all that was missed.
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
