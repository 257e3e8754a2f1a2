/**
 * Packages of other systems, not installed here by npm: their tarballs, checked against the
 * lockfile.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { root } from "./proto.ts";

const run = promisify(execFile);

/** The folder of a package named in the lockfile: installed, or else fetched into `cache`. */
export async function packageFolder(name: string, cache: string): Promise<string> {
  const installed = join(root, "node_modules", name);
  if (await isThere(join(installed, "package.json"))) return installed;
  const lock = JSON.parse(await readFile(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { version: string; integrity: string }>;
  };
  const locked = lock.packages[`node_modules/${name}`];
  if (!locked) throw new Error(`the lockfile does not name ${name}`);
  const folder = join(cache, `${name.replace("/", "+")}-${locked.version}`);
  if (await isThere(join(folder, "package.json"))) return folder;
  await mkdir(folder, { recursive: true });
  const { stdout } = await run(
    "npm",
    ["pack", `${name}@${locked.version}`, "--json", "--silent", "--pack-destination", cache],
    { cwd: cache },
  );
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  const tarball = join(cache, filename);
  const digest = `sha512-${createHash("sha512")
    .update(await readFile(tarball))
    .digest("base64")}`;
  if (digest !== locked.integrity) throw new Error(`${name}@${locked.version} is not what the lockfile says`);
  await run("tar", ["-xzf", tarball, "-C", folder, "--strip-components=1"]);
  await rm(tarball);
  return folder;
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
