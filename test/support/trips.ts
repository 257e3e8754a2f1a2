/** Round trips of this process to PostgreSQL. */
import pg from "pg";
import { vi } from "vitest";

/**
 * Counts the messages that PostgreSQL answers with one ReadyForQuery each, of all connections,
 * since the last call. To be restored by `vi.restoreAllMocks`.
 */
export function countTrips(): () => number {
  const { prototype } = (pg as unknown as { Connection: { prototype: { sync(): void; query(): void } } })
    .Connection;
  const spies = [vi.spyOn(prototype, "sync"), vi.spyOn(prototype, "query")];
  return () => {
    const count = spies.reduce((sum, spy) => sum + spy.mock.calls.length, 0);
    for (const spy of spies) spy.mockClear();
    return count;
  };
}
