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

export type Source<T> = {
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
};

export function createCollection<T extends object>(source: Source<T>): Collection<T> {
  return new Listed(source);
}

class Listed<T extends object> implements Collection<T> {
  readonly #source: Source<T>;
  readonly #byId = signal<ReadonlyMap<string, T>>(new Map());
  readonly #order: Order<T>;
  readonly #changed = new Set<string>();
  #isStale = true;
  #shown = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #listing: AbortController | undefined;
  #listedAt = 0;
  #generation = 0;
  readonly items: ReadonlySignal<readonly T[]>;
  readonly state = signal<CollectionState>("empty");
  readonly error = signal("");

  constructor(source: Source<T>) {
    this.#source = source;
    this.#order = new Order(source);
    this.items = computed(() => this.#order.sorted(this.#byId.value.values()));
  }

  find(id: string): T | undefined {
    return this.#byId.value.get(id);
  }

  put(item: T): void {
    this.#byId.value = new Map(this.#byId.value).set(this.#source.idOf(item), item);
  }

  remove(id: string): void {
    const next = new Map(this.#byId.value);
    if (next.delete(id)) this.#byId.value = next;
  }

  touch(id: string): void {
    this.#changed.add(id);
    if (this.#changed.size > singlesMax) {
      this.#isStale = true;
      this.#changed.clear();
    }
    this.#plan();
  }

  resync(): void {
    this.#isStale = true;
    this.#plan();
  }

  show(): () => void {
    this.#shown++;
    this.#plan();
    return () => {
      this.#shown--;
    };
  }

  clear(): void {
    this.#generation++;
    this.#listing?.abort();
    this.#listing = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#changed.clear();
    this.#isStale = true;
    this.#listedAt = 0;
    this.#byId.value = new Map();
    this.state.value = "empty";
    this.error.value = "";
  }

  #isWanted(): boolean {
    if (this.#shown > 0) return this.#isStale || this.#changed.size > 0;
    if (!this.#source.isNamed) return false;
    if (this.#isStale && this.state.value !== "ready") return true;
    return [...this.#changed].some((id) => !this.#byId.value.has(id));
  }

  #plan(): void {
    if (this.#timer !== undefined || this.#listing || !this.#isWanted()) return;
    const restMs = this.#isStale ? this.#listedAt + relistEveryMs - performance.now() : 0;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        void (this.#isStale ? this.#list() : this.#getChanged()).finally(() => this.#plan());
      },
      this.state.value === "empty" ? 0 : Math.max(gatherMs, restMs),
    );
  }

  async #list(): Promise<void> {
    const mine = new AbortController();
    this.#listing = mine;
    this.#listedAt = performance.now();
    this.#isStale = false;
    this.#changed.clear();
    if (this.state.value !== "ready") this.state.value = "loading";
    try {
      this.#byId.value = await this.#readPages(mine.signal);
      this.state.value = "ready";
      this.error.value = "";
    } catch (failure) {
      if (mine.signal.aborted) return;
      // Only an unreachable server is asked again; other errors, such as a missing permission,
      // stay.
      this.#isStale = isUnreachable(failure);
      this.error.value = explainError(failure);
      if (this.state.value !== "ready") this.state.value = "failed";
    } finally {
      if (this.#listing === mine) this.#listing = undefined;
    }
  }

  async #readPages(signal: AbortSignal): Promise<Map<string, T>> {
    const isFirst = this.state.value === "loading";
    const found = new Map<string, T>();
    for await (const page of this.#source.pages(signal)) {
      for (const item of page) found.set(this.#source.idOf(item), item);
      // The first read shows each page at once; later reads replace the list as a whole.
      if (isFirst) this.#byId.value = new Map(found);
    }
    return found;
  }

  async #getChanged(): Promise<void> {
    const ids = [...this.#changed];
    this.#changed.clear();
    const from = this.#generation;
    const found = await Promise.all(ids.map((id) => this.#get(id)));
    if (from !== this.#generation) return;
    const next = new Map(this.#byId.value);
    for (const [index, id] of ids.entries()) {
      const item = found[index];
      if (item) next.set(id, item);
      else next.delete(id);
    }
    this.#byId.value = next;
  }

  async #get(id: string): Promise<T | undefined> {
    try {
      return await this.#source.get(id);
    } catch (failure) {
      if (isNotFound(failure)) return undefined;
      // The stream is broken too, and its return reads all missed changes.
      return this.find(id);
    }
  }
}

/**
 * The sort order of a source. A changed item is a new object, so each sort key is computed once.
 */
class Order<T extends object> {
  readonly #source: Pick<Source<T>, "orderOf" | "isDescending">;
  readonly #keys = new WeakMap<T, string>();

  constructor(source: Pick<Source<T>, "orderOf" | "isDescending">) {
    this.#source = source;
  }

  sorted(items: Iterable<T>): T[] {
    const keyed = Array.from(items, (item) => ({ item, key: this.#keyOf(item) }));
    const up = this.#source.isDescending ? -1 : 1;
    keyed.sort((a, b) => (a.key < b.key ? -up : a.key > b.key ? up : 0));
    return keyed.map(({ item }) => item);
  }

  #keyOf(item: T): string {
    let key = this.#keys.get(item);
    if (key === undefined) {
      key = this.#source.orderOf(item);
      this.#keys.set(item, key);
    }
    return key;
  }
}
