import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
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

/** Makes a copy of the sources with the replacements; the caller removes the copy. */
export async function copySources(replacements: readonly Replacement[]): Promise<string> {
  const tree = await mkdtemp(join(tmpdir(), "pinion-mutated-"));
  await Promise.all([
    cp(join(repository, "src"), join(tree, "src"), { recursive: true }),
    cp(join(repository, "clients/ts"), join(tree, "clients/ts"), {
      recursive: true,
      filter: (path) => !/node_modules/.test(path),
    }),
    cp(join(repository, "package.json"), join(tree, "package.json")),
    symlink(join(repository, "node_modules"), join(tree, "node_modules")),
  ]);
  for (const replacement of replacements) {
    const file = join(tree, replacement.file);
    await writeFile(file, replaceOnce(await readFile(file, "utf8"), replacement));
  }
  return tree;
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
