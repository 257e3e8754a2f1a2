import { checkDatabase } from "../doctor/database.ts";
import { type ExitCode, exitCodes, Failure } from "../failures.ts";

/** Checks required by `up` and `serve` for an external database; the doctor reports the others. */
const needed = new Set(["database URL", "database", "version", "writes"]);

const exitCodeOf: Record<string, ExitCode> = {
  "database URL": exitCodes.usage,
  // A failed check of the connection means an unreachable database.
  database: exitCodes.unreachable,
};

/** Refuses a database that is unreachable, too old, or read-only, with a remedy. */
export async function requireUsableDatabase(url: string): Promise<void> {
  const checks = await checkDatabase(url);
  const bad = checks.find((check) => check.verdict === "bad" && needed.has(check.name));
  if (!bad) return;
  throw new Failure(exitCodeOf[bad.name] ?? exitCodes.conflict, `database: ${bad.found}`, bad.advice);
}
