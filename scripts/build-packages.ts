/**
 * Packages of distributions from the single executables of `npm run build:executables`:
 *
 *   piniond_0.1.0-1_amd64.deb …        the daemon, its unit and /etc/piniond
 *   pinion_0.1.0-1_amd64.deb …         the server and the command, its unit and /etc/pinion
 *   piniond_linux-x64.nfpm.yaml …      the configurations of nfpm that describe them
 *   programs/                          the executables, unpacked, as the configurations expect them
 *   SHA256SUMS                         digests of the packages
 *
 * nfpm makes .deb and .rpm. Without nfpm dpkg-deb makes the .deb. `npm run build:packages [--
 * --from DIR --out DIR --system linux-x64 --program piniond --format deb]`.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { chmod, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { delimiter, dirname, join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import {
  architectures,
  debFile,
  nfpmConfig,
  type PackageName,
  type PackagePlan,
  packageNames,
  planPackage,
  writeDebTree,
} from "./lib/packages.ts";
import { root } from "./lib/proto.ts";

const run = promisify(execFile);
const formats = ["deb", "rpm"];

type Manifest = {
  version: string;
  commit: string;
  downloads: { program: string; system: string; file: string; sha256: string }[];
};

const { values } = parseArgs({
  options: {
    from: { type: "string", default: join(root, "dist/downloads") },
    out: { type: "string", default: join(root, "dist/packages") },
    system: { type: "string", multiple: true },
    program: { type: "string", multiple: true, default: [...packageNames] },
    format: { type: "string", multiple: true, default: formats },
    /** Both formats have a field for the name and address of the builder. */
    maintainer: { type: "string", default: "Pinion <root@localhost>" },
  },
});
const from = resolve(values.from);
const out = resolve(values.out);

function stop(problem: string, advice: string): never {
  console.error(`error: ${problem}\n  -> ${advice}`);
  process.exit(1);
}

function findTool(name: string): string | undefined {
  return (process.env.PATH ?? "")
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

async function readManifest(): Promise<Manifest> {
  const file = join(from, "manifest.json");
  const text = await readFile(file, "utf8").catch(() =>
    stop(`${file} is not there`, "make the executables first: npm run build:executables"),
  );
  return JSON.parse(text) as Manifest;
}

/** Unpacks an executable and compares its digest with the manifest. */
async function unpack(download: Manifest["downloads"][number], target: string): Promise<void> {
  const packed = await readFile(join(from, download.file)).catch(() =>
    stop(
      `${download.file} is in the manifest and not in ${from}`,
      "npm run build:executables makes both anew",
    ),
  );
  if (createHash("sha256").update(packed).digest("hex") !== download.sha256) {
    stop(
      `${download.file} has another digest than its manifest says`,
      "npm run build:executables makes both anew",
    );
  }
  await writeFile(target, gunzipSync(packed));
  await chmod(target, 0o755);
}

async function buildDeb(plan: PackagePlan, tree: string): Promise<string> {
  await rm(tree, { recursive: true, force: true });
  await writeDebTree(plan, tree);
  const file = debFile(plan);
  // As nfpm does; xz takes minutes for an executable and every dpkg reads gzip.
  await run("dpkg-deb", ["--root-owner-group", "-Zgzip", "--build", tree, join(out, file)]);
  return file;
}

for (const format of values.format) {
  if (!formats.includes(format)) stop(`there is no format ${format}`, `formats are ${formats.join(", ")}`);
}
for (const name of values.program) {
  if (!(packageNames as readonly string[]).includes(name)) {
    stop(`there is no package ${name}`, `packages are ${packageNames.join(", ")}`);
  }
}
const manifest = await readManifest();
const wanted = manifest.downloads.filter(
  ({ program, system }) =>
    values.program.includes(program) &&
    (values.system === undefined ? system in architectures : values.system.includes(system)),
);
const missing = (values.system ?? ["a system with packages"]).flatMap((system) =>
  values.program
    .filter(
      (name) =>
        !wanted.some((found) => found.program === name && (!values.system || found.system === system)),
    )
    .map((name) => `${name} for ${system}`),
);
if (missing.length > 0) {
  stop(
    `${from} has no ${missing.join(", no ")}`,
    "npm run build:executables -- --system SYSTEM --program NAME",
  );
}

const nfpm = findTool("nfpm");
const dpkgDeb = findTool("dpkg-deb");
const makeable = nfpm ? formats : dpkgDeb ? ["deb"] : [];
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
const tree = join(out, "tree");
try {
  for (const download of wanted) {
    const { program, system } = download;
    const binary = join(out, "programs", system, program);
    await mkdir(dirname(binary), { recursive: true });
    await unpack(download, binary);
    const plan = planPackage(
      program as PackageName,
      { ...manifest, system, maintainer: values.maintainer },
      binary,
    );
    const configFile = join(out, `${program}_${system}.nfpm.yaml`);
    await writeFile(configFile, nfpmConfig(plan));
    for (const format of values.format) {
      if (!makeable.includes(format)) continue;
      if (nfpm) await run(nfpm, ["package", "--config", configFile, "--packager", format, "--target", out]);
      else console.error(await buildDeb(plan, tree));
    }
  }
} finally {
  await rm(tree, { recursive: true, force: true });
}
const made = (await readdir(out)).filter((name) => /\.(deb|rpm)$/.test(name)).sort();
const sums = await Promise.all(
  made.map(async (name) => {
    const digest = createHash("sha256").update(await readFile(join(out, name)));
    return `${digest.digest("hex")}  ${name}`;
  }),
);
await writeFile(join(out, "SHA256SUMS"), sums.map((line) => `${line}\n`).join(""));
console.error(`${made.length} packages in ${out}`);
const left = values.format.filter((format) => !makeable.includes(format));
if (left.length > 0) {
  stop(
    `no .${left.join(" and no .")} was made: nfpm is not on the PATH`,
    `install nfpm (https://nfpm.goreleaser.com/docs/install/) and run this again; ${left.includes("deb") ? "dpkg-deb makes a .deb, too" : "--format deb asks for the .deb alone"}`,
  );
}
