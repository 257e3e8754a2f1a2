/**
 * The source of a call. The interceptor sets the source around every call, and `events.append`
 * writes it into every event of the call: no handler passes it on, so none can forget.
 *
 * Work shared by many calls runs outside of each call (src/batches/batcher.ts), and records no
 * source.
 */
import { AsyncLocalStorage } from "node:async_hooks";

export type Source = {
  /**
   * The peer's IP address, or the address reported by a trusted proxy; empty if the connection was
   * gone already.
   */
  address: string;
  /** The token's id; empty for a call without a token. */
  tokenId: string;
  /** The client's user agent, shortened. */
  userAgent: string;
  /** The call's id, as in the log and in the answer's header x-request-id. */
  requestId: string;
};

const current = new AsyncLocalStorage<Source>();

/** Calls `fn`; events appended by `fn` and its awaited work have the source. */
export function withinSource<T>(source: Source, fn: () => T): T {
  return current.run(source, fn);
}

/** The source of the current call; undefined outside of a call. */
export function findSource(): Source | undefined {
  return current.getStore();
}
