/**
 * The packages of distributions: contents of each package, as a configuration of nfpm and as a
 * folder for dpkg-deb. Units, configuration and scripts stand in ops/packages.
 */
import { createHash } from "node:crypto";
import { chmod, copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { root } from "./proto.ts";

export const packageNames = ["piniond", "pinion"] as const;
export type PackageName = (typeof packageNames)[number];

/** Debian's name of each system; nfpm translates it for .rpm. */
export const architectures: Record<string, string> = { "linux-x64": "amd64", "linux-arm64": "arm64" };

const sources = join(root, "ops/packages");

const summaries: Record<PackageName, string> = {
  piniond: "Device daemon of Pinion",
  pinion: "Control plane for runs pinned to devices",
};
const texts: Record<PackageName, string> = {
  piniond:
    "The daemon makes this machine a device: it holds a stream to a server and starts the programs that /etc/piniond/device.toml names.",
  pinion: "The server, the command and a PostgreSQL of its own, in one program.",
};

export type PackagePlan = {
  name: PackageName;
  version: string;
  commit: string;
  maintainer: string;
  architecture: string;
  files: { source: string; target: string; mode: number; isConfig: boolean }[];
  scripts: { postinstall: string; preremove: string; postremove: string };
};

/** What goes into a package. `program` is the single executable, unpacked. */
export function planPackage(
  name: PackageName,
  stamp: { version: string; commit: string; system: string; maintainer: string },
  program: string,
): PackagePlan {
  const architecture = architectures[stamp.system];
  if (architecture === undefined) {
    throw new Error(
      `no package for ${stamp.system}; packages are for ${Object.keys(architectures).join(", ")}`,
    );
  }
  const config = (file: string) => ({
    ...{ source: join(sources, file), target: `/etc/${name}/${file}`, mode: 0o640, isConfig: true },
  });
  const plain = (source: string, target: string) => ({ source, target, mode: 0o644, isConfig: false });
  const script = (file: string) => join(sources, `${name}.${file}.sh`);
  return {
    ...{ name, architecture },
    ...{ version: stamp.version, commit: stamp.commit, maintainer: stamp.maintainer },
    files: [
      { source: program, target: `/usr/bin/${name}`, mode: 0o755, isConfig: false },
      plain(join(sources, `${name}.service`), `/usr/lib/systemd/system/${name}.service`),
      config(`${name}.env`),
      ...(name === "piniond" ? [config("device.toml")] : []),
      plain(join(root, "docs/install.md"), `/usr/share/doc/${name}/README`),
      plain(join(root, "LICENSE"), `/usr/share/doc/${name}/copyright`),
    ],
    scripts: {
      ...{
        postinstall: script("postinstall"),
        preremove: script("preremove"),
        postremove: script("postremove"),
      },
    },
  };
}

/** The last line is the stamp that `--version` shows, too. */
function description({ name, version, commit }: PackagePlan): string[] {
  return [
    summaries[name],
    texts[name],
    `Built as ${version}${commit === "" ? "" : ` from commit ${commit}`}.`,
  ];
}

const debDepends = ["libc6 (>= 2.28)", "libstdc++6", "libgcc-s1", "passwd"];
const rpmDepends = ["glibc >= 2.28", "libstdc++", "libgcc", "shadow-utils"];
const recommends: Record<PackageName, string[]> = {
  piniond: ["bubblewrap", "ca-certificates"],
  pinion: ["ca-certificates"],
};

/** The configuration of nfpm. JSON is YAML, so no writer of YAML is needed. */
export function nfpmConfig(plan: PackagePlan): string {
  const { name, version, architecture, maintainer, files, scripts } = plan;
  const config = {
    ...{ name, arch: architecture, platform: "linux", version, version_schema: "semver", release: "1" },
    ...{ section: "admin", priority: "optional", maintainer, license: "Apache-2.0" },
    description: description(plan).join("\n"),
    recommends: recommends[name],
    contents: files.map(({ source, target, mode, isConfig }) => ({
      ...{ src: source, dst: target, file_info: { mode } },
      ...(isConfig ? { type: "config|noreplace" } : {}),
    })),
    scripts,
    overrides: { deb: { depends: debDepends }, rpm: { depends: rpmDepends } },
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}

/** The file name that Debian expects. */
export function debFile({ name, version, architecture }: PackagePlan): string {
  return `${name}_${debVersion(version)}-1_${architecture}.deb`;
}

/** "1.0.0-rc.1" sorts before "1.0.0" for dpkg when a tilde stands in it. */
function debVersion(version: string): string {
  return version.replace("-", "~");
}

/** Writes the folder that `dpkg-deb --build` packs. */
export async function writeDebTree(plan: PackagePlan, folder: string): Promise<void> {
  const control = join(folder, "DEBIAN");
  await makeFolder(control);
  let bytes = 0;
  const sums: string[] = [];
  for (const { source, target, mode } of plan.files) {
    const file = join(folder, target);
    await makeFolder(dirname(file));
    await copyFile(source, file);
    await chmod(file, mode);
    const content = await readFile(file);
    bytes += content.length;
    sums.push(`${createHash("md5").update(content).digest("hex")}  ${relative(folder, file)}`);
  }
  const [summary, ...more] = description(plan);
  const fields = [
    `Package: ${plan.name}`,
    `Version: ${debVersion(plan.version)}-1`,
    "Section: admin",
    "Priority: optional",
    `Architecture: ${plan.architecture}`,
    `Maintainer: ${plan.maintainer}`,
    `Installed-Size: ${Math.ceil(bytes / 1024)}`,
    `Depends: ${debDepends.join(", ")}`,
    `Recommends: ${recommends[plan.name].join(", ")}`,
    `Description: ${summary}`,
    ...more.map((line) => ` ${line}`),
  ];
  await writeFile(join(control, "control"), `${fields.join("\n")}\n`);
  await writeFile(join(control, "md5sums"), `${sums.join("\n")}\n`);
  const configs = plan.files.filter(({ isConfig }) => isConfig).map(({ target }) => `${target}\n`);
  await writeFile(join(control, "conffiles"), configs.join(""));
  const scripts = [
    [plan.scripts.postinstall, "postinst"],
    [plan.scripts.preremove, "prerm"],
    [plan.scripts.postremove, "postrm"],
  ] as const;
  for (const [source, name] of scripts) {
    await copyFile(source, join(control, name));
    await chmod(join(control, name), 0o755);
  }
  for (const name of ["control", "md5sums", "conffiles"]) await chmod(join(control, name), 0o644);
}

/** Whatever the umask says: dpkg refuses a control folder that others may not read. */
async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true });
  if (first === undefined) return;
  for (let at = folder; at.startsWith(first); at = dirname(at)) await chmod(at, 0o755);
}
