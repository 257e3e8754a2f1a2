/**
 * Builds the package of clients/ts for registries: ESM JavaScript with types, and a separate
 * package.json, because npm has no way to give a published package other exports than the
 * workspace, where Node runs the TypeScript directly. `npm run build -w clients/ts [-- --out DIR]`
 */
import { spawnSync } from "node:child_process";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { root } from "./lib/proto.ts";

const source = join(root, "clients/ts");

type Manifest = {
  name: string;
  version: string;
  description: string;
  license: string;
  type: string;
  keywords: string[];
  engines: Record<string, string>;
  dependencies: Record<string, string>;
};

async function build(out: string): Promise<void> {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  compile(out);
  await cp(join(source, "src/gen"), join(out, "gen"), { recursive: true });
  await nameDeclarations(out);
  await writeFile(join(out, "package.json"), `${JSON.stringify(await publishedManifest(), null, 2)}\n`);
  await cp(join(source, "README.md"), join(out, "README.md"));
  await cp(join(root, "LICENSE"), join(out, "LICENSE"));
}

function compile(out: string): void {
  const result = spawnSync(
    process.execPath,
    [
      join(root, "node_modules/typescript/bin/tsc"),
      "-p",
      join(source, "tsconfig.build.json"),
      "--outDir",
      out,
    ],
    { stdio: "inherit" },
  );
  if (result.error) throw result.error;
  if (result.status !== 0) throw new Error(`tsc ended with ${result.status}`);
}

/**
 * tsc gives the imports of the JavaScript their new ending, but leaves ".ts" in the declarations.
 */
async function nameDeclarations(out: string): Promise<void> {
  const entries = await readdir(out, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || !path.endsWith(".d.ts")) continue;
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replace(/((?:from|import\() ?"\.[^"]*)\.ts"/g, '$1.js"'));
  }
}

async function publishedManifest(): Promise<object> {
  const workspace: Manifest = JSON.parse(await readFile(join(source, "package.json"), "utf8"));
  const { name, version, description, license, type, keywords, engines, dependencies } = workspace;
  return {
    ...{ name, version, description, license, type, keywords, engines },
    sideEffects: false,
    types: "./index.d.ts",
    exports: {
      ".": { types: "./index.d.ts", default: "./index.js" },
      "./network": { types: "./network/index.d.ts", default: "./network/index.js" },
      // TypeScript finds the .d.ts beside each file without an entry.
      "./gen/*": "./gen/*",
      "./package.json": "./package.json",
    },
    files: ["**/*.js", "**/*.d.ts"],
    dependencies,
  };
}

const { values } = parseArgs({ options: { out: { type: "string" } } });
await build(resolve(values.out ?? join(source, "dist")));
