/** Running buf, with its plugin on the PATH. */
import { spawnSync } from "node:child_process";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The repository's. */
export const root = fileURLToPath(new URL("../../", import.meta.url));

/**
 * Writes the generated code below a directory, at the paths of buf.gen.yaml. Throws when buf fails.
 */
export function generate(outDir: string): void {
  const bin = join(root, "node_modules", ".bin");
  const result = spawnSync(join(bin, "buf"), ["generate", "--output", outDir], {
    cwd: root,
    env: { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` },
    stdio: "inherit",
  });
  if (result.error) throw result.error;
  if (result.status !== 0) throw new Error(`buf generate ended with ${result.status}`);
}
