import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api } from "./api.ts";
import { createCollection } from "./collection.ts";

const pageSize = 200;
const including = { includeRecentRuns: true, includeNextSlots: true };
const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

export const watchers = createCollection<Watcher>({
  async *pages(signal) {
    let pageToken = "";
    do {
      const page = await api.listWatchers({ ...including, pageSize, pageToken }, { signal });
      yield page.watchers;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  },
  get: async (watcherId) => (await api.getWatcher({ ...including, watcherId })).watcher,
  idOf: (watcher) => watcher.id,
  compare: (a, b) => order.compare(a.slug, b.slug),
  isNamed: true,
});

/** How a watcher is called wherever only its id is known. */
export function slugOf(watcherId: string): string {
  return watchers.find(watcherId)?.slug || watcherId.slice(-8);
}
