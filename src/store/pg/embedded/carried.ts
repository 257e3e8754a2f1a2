/** PostgreSQL's binaries within the one-file command. */
import { getRawAsset, isSea } from "node:sea";

/** The name under which scripts/build-executables.ts puts them there. */
const asset = "postgres";

/** As `packFolder` made them; undefined where this is no one-file command, or one of a system without them. */
export function carriedBinaries(): Uint8Array | undefined {
  if (!isSea()) return undefined;
  try {
    return new Uint8Array(getRawAsset(asset) as ArrayBuffer);
  } catch {
    return undefined;
  }
}
