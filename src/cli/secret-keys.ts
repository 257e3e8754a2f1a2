import { randomBytes } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../errors.ts";
import { newKey } from "../secrets.ts";
import type { Environment } from "./cli.ts";
import { writeWhole } from "./data-files.ts";
import { exitCodes, Failure } from "./failures.ts";

/**
 * The encryption keys of secrets, in the format of PINION_SECRET_KEYS: from the variable, or from
 * the file `secret-keys` of the data directory, a key per line. With `isCreated` (the database
 * belongs to this directory) a missing file is created with a new key; servers sharing a database
 * need the same keys, so no key is created there. Empty: none.
 */
export function secretKeys(data: string, env: Environment, options: { isCreated: boolean }): string {
  if (env.PINION_SECRET_KEYS) return env.PINION_SECRET_KEYS;
  const found = readKeys(data);
  if (found !== undefined || !options.isCreated) return found ?? "";
  mkdirSync(data, { recursive: true });
  // Written to a draft and linked: of two concurrent writers only the first creates the file, and
  // readers never see a partial file.
  const path = keyFile(data);
  const draft = `${path}.${randomBytes(4).toString("hex")}`;
  writeFileSync(draft, `${newKey()}\n`, { mode: 0o600, flush: true });
  try {
    linkSync(draft, path);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  } finally {
    unlinkSync(draft);
  }
  return readKeys(data) ?? "";
}

export function keyFile(data: string): string {
  return join(data, "secret-keys");
}

/** Replaces the keys of the file; the first key seals. */
export function writeKeys(data: string, keys: readonly string[]): void {
  writeWhole(keyFile(data), keys.map((key) => `${key}\n`).join(""), 0o600);
}

/** The file's keys; undefined without a file. Throws a Failure if other users may read the file. */
export function readKeys(data: string): string | undefined {
  const path = keyFile(data);
  try {
    if (process.platform !== "win32" && (statSync(path).mode & 0o077) !== 0) {
      throw new Failure(
        exitCodes.conflict,
        `${path} holds the keys of all secrets, and others may read it`,
        `chmod 600 ${path}; if somebody did read it, rotate: pinion secrets rotate`,
      );
    }
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
