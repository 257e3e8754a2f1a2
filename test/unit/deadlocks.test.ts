import { expect, test } from "vitest";
import { deadlocksIn } from "../support/deadlocks.ts";

/** As PostgreSQL writes it, for two transactions that cross. */
const entry = (statement: string) => `2026-11-30 18:35:24.123 UTC [4711] ERROR:  deadlock detected
2026-11-30 18:35:24.123 UTC [4711] DETAIL:  Process 4711 waits for ShareLock on transaction 815; blocked by process 4712.
	Process 4711: ${statement}
	Process 4712: delete from watcher_after
2026-11-30 18:35:24.123 UTC [4711] HINT:  See server log for query details.
2026-11-30 18:35:24.123 UTC [4711] STATEMENT:  ${statement}
`;
const other = `2026-11-30 18:35:24.122 UTC [4711] WARNING:  there is already a transaction in progress
2026-11-30 18:35:25.001 UTC [4713] ERROR:  duplicate key value violates unique constraint "org_pkey"
`;

test("a run of the tests fails with the statements of a deadlock, but for the one on purpose", () => {
  const log = `${other}${entry("insert into watcher_after")}${other}${entry(`update "org" set "name" = name || '+'`)}`;
  const [deadlock, ...more] = deadlocksIn(log);
  expect(more).toEqual([]);
  expect(deadlock).toContain("Process 4712: delete from watcher_after");
  expect(deadlock).toContain("STATEMENT:  insert into watcher_after");
  expect(deadlock).not.toContain("duplicate key");
  expect(deadlocksIn(other)).toEqual([]);
});
