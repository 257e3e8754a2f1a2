import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { Environment } from "../cli.ts";

/** Path of a program started by a daemon with this environment. */
export function findProgram(name: string, env: Environment): string | undefined {
  const places = name.includes("/")
    ? [name]
    : (env.PATH ?? "")
        .split(delimiter)
        .filter((directory) => directory !== "")
        .map((directory) => join(directory, name));
  for (const path of places) {
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // Try the next directory.
    }
  }
  return undefined;
}
