/**
 * Imports and exports of `@pinion/client` in the bundled sources, resolved to the modules behind
 * its index: a bundler that splits its output loads a whole index for any of its names, and a
 * command like `pinion runs list` would load the device's half of the client with it.
 */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, sep } from "node:path";
import type { Plugin } from "esbuild";
import { root } from "./proto.ts";

const clientSources = join(root, "clients/ts/src");
const useOfIndex = /(import|export) (type )?\{([^}]*)\} from "@pinion\/client";/g;

export const directImports: Plugin = {
  name: "direct-imports",
  setup(plugins) {
    const moduleOf = modulesByName();
    const sources = join(root, "src") + sep;
    plugins.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      if (!path.startsWith(sources)) return undefined;
      const text = await readFile(path, "utf8");
      if (!text.includes('"@pinion/client"')) return undefined;
      const contents = text.replace(useOfIndex, (_, verb, isType, names) =>
        isType ? "" : directly(moduleOf, verb, names),
      );
      // Another form would load the whole index.
      if (contents.includes('"@pinion/client"'))
        throw new Error(`${path}: name what is used of @pinion/client`);
      return { contents, loader: "ts" };
    });
  },
};

/** The listed names, one statement for each. Types vanish in the bundle. */
function directly(moduleOf: ReadonlyMap<string, string>, verb: string, list: string): string {
  return namesIn(list)
    .map((name) => {
      const path = moduleOf.get(name.split(" as ")[0]!);
      if (!path) throw new Error(`@pinion/client has no ${name}`);
      return `${verb} { ${name} } from ${JSON.stringify(path)};`;
    })
    .join(" ");
}

/** The exported values of the client's index, each with its module. */
function modulesByName(): Map<string, string> {
  const index = readFileSync(join(clientSources, "index.ts"), "utf8");
  return new Map(
    [...index.matchAll(/^export \{([^}]*)\} from "(.*)";/gm)].flatMap(([, list, path]) =>
      namesIn(list!).map((name) => [name, join(clientSources, path!)] as const),
    ),
  );
}

/** The names of values in an import's or export's list. */
function namesIn(list: string): string[] {
  return list
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "" && !name.startsWith("type "));
}
