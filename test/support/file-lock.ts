import { closeSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** One test process at a time. A lock is free after `heldMsMax`, and when its process has ended. */
export async function lock(path: string, heldMsMax: number): Promise<() => void> {
  const deadline = Date.now() + heldMsMax;
  for (;;) {
    try {
      const file = openSync(path, "wx");
      writeSync(file, String(process.pid));
      closeSync(file);
      return () => rmSync(path, { force: true });
    } catch {
      if (Date.now() > deadline || !isHeld(path)) rmSync(path, { force: true });
      await sleep(100);
    }
  }
}

function isHeld(path: string): boolean {
  try {
    const holder = Number(readFileSync(path, "utf8"));
    // Just made, and not written yet.
    if (holder === 0) return Date.now() - statSync(path).mtimeMs < 1_000;
    process.kill(holder, 0);
    return true;
  } catch {
    return false;
  }
}
