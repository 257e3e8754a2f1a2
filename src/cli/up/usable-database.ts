import { checkDatabase } from "../doctor/database.ts";
import { type ExitCode, exitCodes, Failure } from "../failures.ts";

/** What `up` and `serve` need of a database that is not theirs; the rest is for the doctor to say. */
const needed = new Set(["database URL", "database", "version", "writes"]);

const exitCodeOf: Record<string, ExitCode> = {
  "database URL": exitCodes.usage,
  // Alone, the check of the connection means that there was no way in.
  database: exitCodes.unreachable,
};

/** Refuses a database that cannot be reached, is too old, or takes no writes, with what to do about it. */
export async function requireUsableDatabase(url: string): Promise<void> {
  const checks = await checkDatabase(url);
  const bad = checks.find((check) => check.verdict === "bad" && needed.has(check.name));
  if (!bad) return;
  throw new Failure(exitCodeOf[bad.name] ?? exitCodes.conflict, `database: ${bad.found}`, bad.advice);
}
