/** The build of this program: from its sources, in npm's package, or one file. */
import { readFileSync } from "node:fs";

export type Build = {
  /** `piniond` is the daemon alone. */
  program: "pinion" | "piniond";
  kind: "source" | "package" | "executable";
  version: string;
  /** The commit of the sources; empty if the program runs from its sources. */
  commit: string;
};

/** Set by scripts/lib/bundle.ts; undefined if the program runs from its sources. */
declare const BUILD_STAMP: Build | undefined;

export const build: Build =
  typeof BUILD_STAMP === "undefined"
    ? { program: "pinion", kind: "source", version: sourceVersion(), commit: "" }
    : BUILD_STAMP;

function sourceVersion(): string {
  const file = new URL("../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}
