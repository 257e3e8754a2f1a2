/**
 * A deadlock between two transactions of Pinion passes unseen, because each transaction is tried
 * again (src/store/pg/database.ts); yet it costs `deadlock_timeout` and a second try, and says that
 * two transactions take their locks in two orders. So a run of the tests fails with the statements.
 */
import { readFile } from "node:fs/promises";

/** Of the test in which two transactions deadlock on purpose. */
const onPurpose = "name || '+'";

/** The deadlocks in PostgreSQL's log, each with its statements. */
export function deadlocksIn(log: string): string[] {
  const entries = log.split(/^(?=\d{4}-\d\d-\d\d [\d:.]+ \S+ \[\d+\] (?:ERROR|LOG|WARNING|FATAL):)/m);
  return entries.filter((entry) => /ERROR: {2}deadlock detected/.test(entry) && !entry.includes(onPurpose));
}

/** Fails the run, which goes on to its end, if its PostgreSQL has noted a deadlock. */
export async function refuseDeadlocks(logFile: string): Promise<void> {
  const deadlocks = deadlocksIn(await readFile(logFile, "utf8"));
  if (deadlocks.length === 0) return;
  process.stderr.write(`\n${deadlocks.length} deadlocks:\n\n${deadlocks.join("\n")}\n`);
  process.exitCode = 1;
}
