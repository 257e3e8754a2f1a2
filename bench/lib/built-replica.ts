/**
 * The replica of the benches, bundled as npm's package bundles the command, once per bench: that is
 * what people run. A process that reads the sources also holds the loader of TypeScript and every
 * module's text, 40 MiB more.
 */
import { rmSync } from "node:fs";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { bundlePackage } from "../../scripts/lib/bundle.ts";
import { root } from "../../scripts/lib/proto.ts";

/** Below the packages, which the replica looks for in the folders above its own. */
const builds = join(root, "node_modules/.cache/pinion-bench");
let built: Promise<string> | undefined;

/** The path of the built `bench/replica.ts`; removed when the bench ends. */
export function builtReplica(): Promise<string> {
  built ??= build();
  return built;
}

async function build(): Promise<string> {
  await mkdir(builds, { recursive: true });
  const folder = await mkdtemp(join(builds, "replica-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  await bundlePackage(folder, "bench/replica.ts");
  await writeFile(join(folder, "package.json"), `${JSON.stringify({ type: "module" })}\n`);
  return join(folder, "main.js");
}
