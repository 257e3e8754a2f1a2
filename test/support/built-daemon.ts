/**
 * The daemon as one file for this system, in its folder of downloads, built once for all tests of a
 * run.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { inject } from "vitest";
import { root } from "./docs.ts";
import { lock } from "./file-lock.ts";

const run = promisify(execFile);
const script = join(root, "scripts/build-executables.ts");
/** Ten times the time of a build on a quiet machine. */
const buildMsMax = 120_000;

/**
 * The folder of `piniond` and its manifest; read it only. `as`: another version than the package's.
 * The folder of the built command, whose name is a digest of the sources, is beside it.
 */
export async function buildDaemon(as?: string): Promise<string> {
  const sources = dirname(inject("pinionMain"));
  const scripts = [script, ...["bundle", "sbom"].map((name) => join(root, `scripts/lib/${name}.ts`))];
  const digest = createHash("sha256").update(`${sources} ${as ?? ""}`);
  for (const file of scripts) digest.update(readFileSync(file));
  const folder = join(dirname(sources), `daemon-${digest.digest("hex").slice(0, 16)}`);
  const release = await lock(`${folder}.lock`, buildMsMax);
  try {
    // The digests are written last.
    if (existsSync(join(folder, "SHA256SUMS"))) return folder;
    const wanted = ["--system", `${process.platform}-${process.arch}`, "--program", "piniond", "--quick"];
    await run(process.execPath, [script, ...wanted, "--out", folder, ...(as ? ["--as", as] : [])], {
      cwd: root,
    });
    return folder;
  } finally {
    release();
  }
}
