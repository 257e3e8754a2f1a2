/**
 * The scripts that install a daemon. A bundle replaces the module by their texts
 * (scripts/lib/bundle.ts).
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const read = (name: string) => readFileSync(join(import.meta.dirname, name), "utf8");

/** The texts of the scripts by path; `{{server}}` stands for the server's URL. */
export function installScripts(): ReadonlyMap<string, string> {
  return new Map(["install.sh", "install.ps1"].map((name) => [`/${name}`, read(name)]));
}
