/** How this program was put together: run from its sources, from npm's package, or as one file. */
import { readFileSync } from "node:fs";

export type Build = {
  /** `piniond` is the daemon alone. */
  program: "pinion" | "piniond";
  kind: "source" | "package" | "executable";
  version: string;
  /** The commit of the sources; empty where they are run as they are. */
  commit: string;
};

/** Filled in by scripts/lib/bundle.ts; not there where the sources are run. */
declare const BUILD_STAMP: Build | undefined;

export const build: Build =
  typeof BUILD_STAMP === "undefined"
    ? { program: "pinion", kind: "source", version: sourceVersion(), commit: "" }
    : BUILD_STAMP;

function sourceVersion(): string {
  const file = new URL("../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
