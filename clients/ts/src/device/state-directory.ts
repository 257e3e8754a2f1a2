import { join } from "node:path";
import { type KeepLimits, KeptResults } from "../outbox/kept.ts";
import { lockStateDir } from "../outbox/lock.ts";
import { Outbox, type OutboxEntry, type SetAside } from "../outbox/outbox.ts";
import { ensurePrivateDirectory } from "../private-directory.ts";
import { DeviceError, messageOf } from "./errors.ts";

/** The state directory of a device, locked and recovered. */
export interface StateDirectory {
  lock: { release(): Promise<void> };
  outbox: Outbox;
  entries: OutboxEntry[];
  setAside: SetAside[];
  kept: KeptResults;
}

/**
 * Errors of a disk that is full, read-only, failing or away, and of a machine without memory or
 * files.
 */
const passingCodes = new Set([
  ...["ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "ETIMEDOUT", "EBUSY"],
  ...["EMFILE", "ENFILE", "ENOMEM", "EAGAIN"],
]);

/**
 * Locks and recovers the state directory; after an error nothing is locked. Throws DeviceError if a
 * person has to do something. The call may be repeated after any other error: a daemon that a full
 * disk ended at its start would not come back by itself, and its results would wait for a person.
 */
export async function openStateDirectory(options: {
  stateDir: string;
  keep?: KeepLimits | undefined;
  /** Runs under the lock, before the outbox is opened. */
  prepare?: (() => Promise<void>) | undefined;
}): Promise<StateDirectory> {
  let lock: StateDirectory["lock"] | undefined;
  try {
    await ensurePrivateDirectory(options.stateDir);
    lock = await lockStateDir(options.stateDir);
    await options.prepare?.();
    const directory = join(options.stateDir, "outbox");
    const { outbox, entries, setAside } = await Outbox.open(directory);
    const kept = await KeptResults.open(directory, options.keep);
    return { lock, outbox, entries, setAside, kept };
  } catch (error) {
    await lock?.release().catch(() => {});
    if (error instanceof DeviceError) throw error;
    const message = `cannot use ${options.stateDir}: ${messageOf(error)}`;
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (passingCodes.has(code)) throw new Error(message, { cause: error });
    throw new DeviceError("unusable", message, { cause: error });
  }
}
