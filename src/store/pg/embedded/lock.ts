/** A lock on a directory that ends with its holder, however that ends. */
import { randomBytes } from "node:crypto";
import { link, readFile, rename, unlink, writeFile } from "node:fs/promises";
import { Refusal } from "../../../errors.ts";
import { processStartedAt } from "./process.ts";

/** A takeover that loses against another one begins again; more rounds than this mean that something else is wrong. */
const attemptsMax = 10;

/**
 * Takes the lock file, or refuses and names the process that holds it. The file of a holder that is gone is replaced;
 * a holder is known by its number and its start, since numbers come again, above all in containers.
 */
export async function lockDirectory(file: string): Promise<{ release(): Promise<void> }> {
  const mine = `${process.pid} ${await processStartedAt(process.pid)}\n`;
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    // Written aside and then linked, so that nobody ever reads a lock without its holder.
    const draft = `${file}.${randomBytes(4).toString("hex")}`;
    await writeFile(draft, mine, { mode: 0o600 });
    try {
      await link(draft, file);
      return { release: () => releaseOwn(file, mine) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
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

/** Takes the stale file away, and puts it back if another took over in between and it is theirs. */
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
