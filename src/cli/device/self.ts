/**
 * The command line for starting this command again: for daemons, services and the programs of a
 * first start.
 */
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "../../build.ts";
import { exitCodes, Failure } from "../exit-codes.ts";

/** The program and its first arguments. */
export function selfCommand(): [string, ...string[]] {
  if (build.kind === "executable") return [process.execPath];
  const main = build.kind === "package" ? "./main.js" : "../main.ts";
  return [process.execPath, fileURLToPath(new URL(main, import.meta.url))];
}

/**
 * The name of this command in a shell: `pinion` after an installation, the path of the file in a
 * checkout.
 */
export function callName(): string {
  if (build.kind !== "source") return "pinion";
  return relative(process.cwd(), fileURLToPath(new URL("../../../pinion", import.meta.url))).replace(
    /^pinion$/,
    "./pinion",
  );
}

/**
 * The same command line for services and other long-lived uses. Refuses a location where npm may
 * remove the files.
 */
export function lastingSelfCommand(): [string, ...string[]] {
  const command = selfCommand();
  if (!command.some((path) => /[\\/]_npx[\\/]/.test(path))) return command;
  throw new Failure(
    exitCodes.conflict,
    "this pinion runs from npx's cache, which npm empties: a service would lose its program",
    "install it first, by the server's install.sh or with `npm install -g` of its package; then give the command again",
  );
}
