/**
 * Builds the command for npm's package into dist/pinion: `npm run build`; also run before `npm
 * pack`.
 */
import { rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { bundledLicenses, bundlePackage } from "./lib/bundle.ts";
import { root } from "./lib/proto.ts";

const { values } = parseArgs({ options: { out: { type: "string" } } });
const out = resolve(values.out ?? join(root, "dist/pinion"));
await rm(out, { recursive: true, force: true });
const bundled = await bundlePackage(out);
// In an image, no package.json lies above this folder; Node needs this one to load the files as ES
// modules.
await writeFile(join(out, "package.json"), `${JSON.stringify({ type: "module" })}\n`);
await writeFile(join(out, "licenses.txt"), await bundledLicenses(bundled));
const bytes = Object.values(bundled.metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
console.error(
  `built ${Object.keys(bundled.metafile.outputs).length} files, ${(bytes / 1024 ** 2).toFixed(1)} MiB, in ${out}`,
);
