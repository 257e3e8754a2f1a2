import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, openSync } from "node:fs";
import { text } from "node:stream/consumers";
import { expect, inject, test } from "vitest";

/** Each write to it fails with ENOSPC. */
const fullDisk = "/dev/full";

test.skipIf(!existsSync(fullDisk))(
  "a command whose output meets a full disk says so in a line, and has failed",
  async () => {
    const command = spawn(process.execPath, [inject("pinionMain"), "--help"], {
      stdio: ["ignore", openSync(fullDisk, "w"), "pipe"],
    });
    const [told, [code]] = await Promise.all([text(command.stderr!), once(command, "exit")]);
    expect(told).toMatch(/^error: the output cannot be written: ENOSPC.*\n$/);
    expect(code).toBe(1);
  },
);
