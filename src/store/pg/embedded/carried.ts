/** PostgreSQL's binaries within the one-file command. */
import { getRawAsset, isSea } from "node:sea";

/** The asset name used by scripts/build-executables.ts. */
const asset = "postgres";

/**
 * The result of `packFolder`; undefined outside of a one-file command, and for a system without the
 * binaries.
 */
export function carriedBinaries(): Uint8Array | undefined {
  if (!isSea()) return undefined;
  try {
    return new Uint8Array(getRawAsset(asset) as ArrayBuffer);
  } catch {
    return undefined;
  }
}
