import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Metafile } from "esbuild";
import { root } from "./proto.ts";

/** The licences of the packages included in a bundle. */
export async function licenses(metafile: Metafile): Promise<string> {
  const packages = new Set(
    Object.keys(metafile.inputs).flatMap(
      (path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? [],
    ),
  );
  const texts = await Promise.all(
    [...packages].sort().map(async (name) => {
      const dir = join(root, "node_modules", name);
      const { version, license } = JSON.parse(await readFile(join(dir, "package.json"), "utf8"));
      const text = await readFile(join(dir, "LICENSE"), "utf8").catch(() => "");
      return `${name} ${version} (${license})\n\n${text.trim()}`.trim();
    }),
  );
  return `${texts.join(`\n\n${"-".repeat(80)}\n\n`)}\n`;
}
