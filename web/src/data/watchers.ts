import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api } from "./api.ts";
import { createCollection, naturally } from "./collection.ts";

const pageSize = 200;
const including = { includeRecentRuns: true, includeNextSlots: true };

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
  orderOf: (watcher) => naturally(watcher.slug),
  isNamed: true,
});

/** Name of a watcher by its id. */
export function slugOf(watcherId: string): string {
  return watchers.find(watcherId)?.slug || watcherId.slice(-8);
}
