import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ChaosResult, runChaos } from "./chaos.ts";
import type { Mutation, Replacement } from "./mutations.ts";

const repository = fileURLToPath(new URL("../../", import.meta.url));

/**
 * Replaces a text that must occur exactly once: a mutation that no longer matches the code proves
 * nothing.
 */
export function replaceOnce(text: string, { file, from, to }: Replacement): string {
  const parts = text.split(from);
  if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times: ${from}`);
  return parts.join(to);
}

/**
 * Makes a copy of the sources with the replacements, for replicas and hosts alike; the caller
 * removes the copy.
 */
async function copySources(replacements: readonly Replacement[]): Promise<string> {
  const tree = await mkdtemp(join(tmpdir(), "pinion-mutated-"));
  await Promise.all([
    cp(join(repository, "src"), join(tree, "src"), { recursive: true }),
    cp(join(repository, "clients/ts"), join(tree, "clients/ts"), {
      recursive: true,
      filter: (path) => !/node_modules/.test(path),
    }),
    cp(join(repository, "test/chaos"), join(tree, "test/chaos"), { recursive: true }),
    cp(join(repository, "test/support"), join(tree, "test/support"), { recursive: true }),
    cp(join(repository, "package.json"), join(tree, "package.json")),
    linkPackages(tree),
  ]);
  for (const replacement of replacements) {
    const file = join(tree, replacement.file);
    await writeFile(file, replaceOnce(await readFile(file, "utf8"), replacement));
  }
  return tree;
}

/** All packages are those of the repository, but for our own client. */
async function linkPackages(tree: string): Promise<void> {
  const [from, to] = [join(repository, "node_modules"), join(tree, "node_modules")];
  await mkdir(join(to, "@pinion"), { recursive: true });
  await symlink("../../clients/ts", join(to, "@pinion/client"));
  for (const name of await readdir(from)) {
    if (name !== "@pinion") await symlink(join(from, name), join(to, name));
  }
}

/**
 * Runs the rig on broken sources; `caught`: the violations of the rules targeted by the mutation.
 */
export async function runMutation(
  mutation: Mutation,
  options: { seed: number; onProgress?: (text: string) => void },
): Promise<ChaosResult & { caught: ChaosResult["violations"] }> {
  const { kinds, outageMsMax = 0, ...rig } = mutation.rig;
  const tree = mutation.replacements.length > 0 ? await copySources(mutation.replacements) : undefined;
  try {
    const result = await runChaos({
      trafficDevices: 0,
      ...rig,
      ...options,
      outageMsMax,
      kinds,
      sourceTree: tree,
      dropsOutbox: mutation.dropsOutbox ?? false,
      prefersUnary: mutation.prefersUnary ?? false,
    });
    const caught = result.violations.filter(({ rule }) => mutation.breaks.includes(rule));
    return { ...result, caught };
  } finally {
    if (tree) await rm(tree, { recursive: true, force: true });
  }
}
