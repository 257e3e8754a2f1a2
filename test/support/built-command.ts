/**
 * The command as npm's package holds it, built once for all tests of a run: a process of it starts
 * in half the processor time of one that reads the sources.
 */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bundlePackage } from "../../scripts/lib/bundle.ts";
import { root } from "../../scripts/lib/proto.ts";

/** Below the packages, which the command looks for in the folders above its own. */
const builds = join(root, "node_modules/.cache/pinion-test");
/** Beside `main.js`: esbuild's account of which part holds which sources. */
export const metafileName = "metafile.json";
const unusedMsMax = 3_600_000;

/**
 * The path of `main.js`. Equal sources have equal paths, so Node's cache of compiled code serves
 * later runs.
 */
export async function buildCommand(): Promise<string> {
  await mkdir(builds, { recursive: true });
  await removeOld();
  const building = await mkdtemp(join(builds, "building-"));
  const { metafile } = await bundlePackage(building);
  await writeFile(join(building, metafileName), JSON.stringify(metafile));
  await writeFile(join(building, "package.json"), `${JSON.stringify({ type: "module" })}\n`);
  // The names of the parts hold their hashes.
  const names = (await readdir(building)).sort().join(" ");
  const digest = createHash("sha256")
    .update(names)
    .update(await readFile(join(building, "main.js")));
  const built = join(builds, digest.digest("hex").slice(0, 16));
  // A run beside this one may have built the same.
  await rename(building, built).catch(() => rm(building, { recursive: true, force: true }));
  await utimes(built, new Date(), new Date());
  return join(built, "main.js");
}

async function removeOld(): Promise<void> {
  for (const name of await readdir(builds)) {
    const { mtimeMs } = await stat(join(builds, name)).catch(() => ({ mtimeMs: Number.POSITIVE_INFINITY }));
    if (Date.now() - mtimeMs < unusedMsMax) continue;
    await rm(join(builds, name), { recursive: true, force: true });
  }
}
