/**
 * From where a call comes. The interceptor sets it around every call, and `events.append` writes it into every event that
 * the call leaves: no handler passes it on, so none can forget it.
 *
 * What many calls share runs outside of each of them (src/batcher.ts), and leaves no source.
 */
import { AsyncLocalStorage } from "node:async_hooks";

export type Source = {
  /** The peer's IP address, or the one that a trusted proxy names; empty if the connection was gone already. */
  address: string;
  /** The token's id; empty for a call that needs none. */
  tokenId: string;
  /** What the client says that it is, shortened. */
  userAgent: string;
  /** The call's id, as in the log and in the answer's header x-request-id. */
  requestId: string;
};

const current = new AsyncLocalStorage<Source>();

/** Calls `fn`; events that it, and what it waits for, appends have this source. */
export function withinSource<T>(source: Source, fn: () => T): T {
  return current.run(source, fn);
}

/** The source of the call that this is part of, if it is part of one. */
export function findSource(): Source | undefined {
  return current.getStore();
}
