/** A lock on a directory that ends with its holder, even after a crash. */
import { randomBytes } from "node:crypto";
import { link, readFile, rename, unlink, writeFile } from "node:fs/promises";
import { codeOf, Refusal } from "../../../errors.ts";
import { processStartedAt } from "./process.ts";

/**
 * Maximum rounds: a takeover that loses against another takeover begins again; more rounds have
 * another cause.
 */
const attemptsMax = 10;

/**
 * Takes the lock file, or refuses and names the holding process. The file of a dead holder is
 * replaced. A holder is identified by process number and start time, since numbers are reused,
 * above all in containers.
 */
export async function lockDirectory(file: string): Promise<{ release(): Promise<void> }> {
  const mine = `${process.pid} ${await processStartedAt(process.pid)}\n`;
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    // Written to a draft and then linked, so that a lock file without its holder is never visible.
    const draft = `${file}.${randomBytes(4).toString("hex")}`;
    await writeFile(draft, mine, { mode: 0o600 });
    try {
      await link(draft, file);
      return { release: () => releaseOwn(file, mine) };
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw error;
    } finally {
      await unlink(draft);
    }
    const found = await readFile(file, "utf8").catch(() => undefined);
    if (found === undefined) continue;
    const [pid, ...startedAt] = found.trim().split(" ");
    if ((await processStartedAt(Number(pid))) === startedAt.join(" ") && startedAt.length > 0) {
      throw new Refusal(
        "failed_precondition",
        `Another Pinion (process ${pid}) uses this data directory (its lock is ${file}). ` +
          "Stop it, or choose another data directory.",
      );
    }
    await removeStale(file, found);
  }
  throw new Error(`the lock ${file} could not be taken in ${attemptsMax} attempts`);
}

/** Removes the stale file, and restores it if another process took over in between and owns it. */
async function removeStale(file: string, stale: string): Promise<void> {
  const aside = `${file}.${randomBytes(4).toString("hex")}`;
  try {
    await rename(file, aside);
  } catch {
    return;
  }
  if ((await readFile(aside, "utf8")) !== stale) await link(aside, file).catch(() => {});
  await unlink(aside);
}

async function releaseOwn(file: string, mine: string): Promise<void> {
  const found = await readFile(file, "utf8").catch(() => undefined);
  if (found === mine) await unlink(file).catch(() => {});
}
