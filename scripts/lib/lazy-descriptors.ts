/**
 * Descriptors made at their first use. A generated file builds the descriptors of all its messages
 * as it is loaded, and those of the files that it imports: the 13 files of the API take 50 ms, of
 * which a command needs a fraction. In a bundle each export but an enum becomes a getter of a
 * CommonJS module, which the bundler reads anew at every use. An enum is written out, because the
 * tables of words need its numbers as they are loaded.
 */
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import type { Plugin } from "esbuild";

const generated = /[\\/](clients[\\/]ts[\\/]src[\\/]gen|@bufbuild[\\/]protovalidate[\\/].*)[\\/].*_pb\.js$/;
const namespace = "descriptors";
/** A statement of a generated file: the name, and the call that makes its value. */
const statement = /^export const (\w+) = \/\*@__PURE__\*\/\s+((\w+)\([^;]*\));$/gm;

export const lazyDescriptors: Plugin = {
  name: "lazy-descriptors",
  setup(plugins) {
    const namesOf = new Map<string, string[]>();
    plugins.onLoad({ filter: generated, namespace: "file" }, async ({ path }) => {
      const { text, names } = await lazily(path);
      namesOf.set(path, names);
      return { contents: text, loader: "js" };
    });
    plugins.onResolve({ filter: /^descriptors:/ }, ({ path }) => ({
      path: path.slice(namespace.length + 1),
      namespace,
    }));
    plugins.onLoad({ filter: /./, namespace }, ({ path }) => ({
      contents: getters(namesOf.get(path) ?? []),
      loader: "js",
    }));
  },
};

/** The text of a generated file whose exports are made at their first use, and their names. */
async function lazily(path: string): Promise<{ text: string; names: string[] }> {
  const made = (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  const makers: string[] = [];
  const names: string[] = [];
  const rest = (await readFile(path, "utf8")).replace(
    statement,
    (_, name: string, call: string, by: string) => {
      if (by === "tsEnum") return `export const ${name} = ${JSON.stringify(made[name])};`;
      names.push(name);
      makers.push(`${name}: () => ${call}`);
      return "";
    },
  );
  if (/_PURE_/.test(rest)) throw new Error(`${path} has statements that are not understood`);
  const text = `${rest}
import { makers, ${names.join(", ")} } from ${JSON.stringify(`${namespace}:${path}`)};
Object.assign(makers, { ${makers.join(",\n")} });
export { ${names.join(", ")} };`;
  return { text, names };
}

/** A CommonJS module with a getter for each name, which keeps what the name's maker has made. */
function getters(names: readonly string[]): string {
  return `
const makers = {};
exports.makers = makers;
for (const name of ${JSON.stringify(names)}) {
  const get = () => {
    const value = makers[name]();
    Object.defineProperty(exports, name, { enumerable: true, value });
    return value;
  };
  Object.defineProperty(exports, name, { enumerable: true, configurable: true, get });
}`;
}
