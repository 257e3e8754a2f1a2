/** The Chat SDK's StateAdapter on PostgreSQL, so that all replicas share a platform's state. */
import type { QueueEntry, StateAdapter } from "chat";
import * as state from "../../../store/agents/platform-state.ts";
import type { Db } from "../../../store/pg/database.ts";

/**
 * Keys by which adapters drop repeated messages before they are handled: a message whose handling
 * then failed would be lost. The row of the message decides instead (incoming.ts), so these keys
 * are never found.
 */
const dropsRepeats = /^dedupe:|:webhook-update:|:event-delivered:/;

/** `hasThreads`: threads may be subscribed to; otherwise nothing is looked up for a message. */
export function createState(
  db: Db,
  platform: { orgId: string; stableId: string },
  { hasThreads }: { hasThreads: boolean },
): StateAdapter {
  const entry = (key: string) => ({ ...platform, key });
  return {
    async connect() {},
    async disconnect() {},
    async get<T>(key: string) {
      if (dropsRepeats.test(key)) return null;
      return (await state.get(db, entry(key))) as T | null;
    },
    async set(key, value, ttlMs) {
      if (!dropsRepeats.test(key)) await state.set(db, { ...entry(key), value, ttlMs });
    },
    async setIfNotExists(key, value, ttlMs) {
      if (dropsRepeats.test(key)) return true;
      return state.setIfNotExists(db, { ...entry(key), value, ttlMs });
    },
    delete: (key) => state.remove(db, { ...entry(key), space: "value" }),
    appendToList: (key, value, options = {}) => state.append(db, { ...entry(key), value, ...options }),
    async getList<T>(key: string) {
      return (await state.list(db, entry(key))) as T[];
    },
    enqueue: (key, value, maxSize) => state.enqueue(db, { ...entry(key), value, maxSize }),
    async dequeue(key) {
      return (await state.dequeue(db, entry(key))) as QueueEntry | null;
    },
    queueDepth: (key) => state.depth(db, entry(key)),
    async acquireLock(threadId, ttlMs) {
      const lock = await state.acquire(db, { ...entry(threadId), ttlMs });
      return lock ? { threadId, token: lock.token, expiresAt: lock.expiresAt.getTime() } : null;
    },
    extendLock: ({ threadId, token }, ttlMs) => state.extend(db, { ...entry(threadId), token, ttlMs }),
    releaseLock: ({ threadId, token }) => state.unlock(db, { ...entry(threadId), token }),
    forceReleaseLock: (threadId) => state.unlock(db, entry(threadId)),
    subscribe: (threadId) => state.subscribe(db, entry(threadId)),
    unsubscribe: (threadId) => state.remove(db, { ...entry(threadId), space: "subscription" }),
    isSubscribed: async (threadId) => hasThreads && (await state.isSubscribed(db, entry(threadId))),
  };
}
