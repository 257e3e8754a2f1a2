/**
 * Packages of distributions, built from a small program that stands where the executables stand.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { parseConfig } from "@pinion/client";
import { afterAll, beforeAll, expect, test } from "vitest";
import { daemonArguments } from "../../src/cli/device/daemon-arguments.ts";
import { serverSettings } from "../../src/config.ts";
import { noticeSkipped } from "../support/notice.ts";
import { findProgram } from "../support/programs.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");
const place = mkdtempSync(join(tmpdir(), "pinion-packages-"));
afterAll(() => rmSync(place, { recursive: true, force: true }));
const from = join(place, "downloads");
const names = ["pinion", "piniond"] as const;

beforeAll(() => {
  mkdirSync(from);
  const downloads = names.flatMap((program) =>
    ["linux-x64", "linux-arm64"].map((system) => {
      const packed = gzipSync(`#!/bin/sh\necho "${program} for ${system}"\n`);
      const file = `${program}-${system}.gz`;
      writeFileSync(join(from, file), packed);
      return { program, system, file, sha256: createHash("sha256").update(packed).digest("hex") };
    }),
  );
  writeFileSync(
    join(from, "manifest.json"),
    JSON.stringify({ version: "1.2.0-rc.1", commit: "abc123", downloads }),
  );
});

/** A PATH of links to these programs, so that no nfpm of the machine is found. */
function pathOf(programs: string[]): string {
  const folder = mkdtempSync(join(place, "path-"));
  for (const program of programs) {
    const found = findProgram(program, undefined);
    if (found) execFileSync("ln", ["-s", found, join(folder, program)]);
  }
  return folder;
}

function build(args: string[], path: string) {
  const out = join(mkdtempSync(join(place, "out-")), "packages");
  const { status, stderr } = spawnSync(
    "/bin/sh",
    [
      "-c",
      'umask 077; exec "$@"',
      "sh",
      process.execPath,
      join(root, "scripts/build-packages.ts"),
      "--from",
      from,
      "--out",
      out,
      ...args,
    ],
    // A strict umask of the builder must not show in the packages.
    { encoding: "utf8", env: { ...process.env, PATH: path } },
  );
  return { status, stderr, out };
}

const debian = ["dpkg-deb", "tar", "gzip", "xz", "rm"];
const hasDpkg = findProgram("dpkg-deb", undefined) !== undefined;
if (!hasDpkg) noticeSkipped("packages for Debian", "no dpkg-deb here (apt-get install dpkg)");
const hasVerify = findProgram("systemd-analyze", undefined) !== undefined;
if (!hasVerify)
  noticeSkipped("the units of the packages", "no systemd-analyze here (apt-get install systemd)");

test.runIf(hasDpkg)("dpkg-deb makes packages that dpkg reads and unpacks", () => {
  const { status, stderr, out } = build(["--format", "deb"], pathOf(debian));
  expect([status, stderr]).toEqual([0, expect.stringContaining("4 packages")]);
  for (const name of names) {
    for (const [system, architecture] of [
      ["linux-x64", "amd64"],
      ["linux-arm64", "arm64"],
    ]) {
      const file = `${name}_1.2.0~rc.1-1_${architecture}.deb`;
      const field = (name: string) =>
        execFileSync("dpkg-deb", ["--field", join(out, file), name], { encoding: "utf8" }).trim();
      expect(field("Package")).toBe(name);
      expect(field("Version")).toBe("1.2.0~rc.1-1");
      expect(field("Architecture")).toBe(architecture);
      expect(field("Description")).toContain("Built as 1.2.0-rc.1 from commit abc123.");
      expect(field("Depends")).toContain("libc6");

      const listed = execFileSync("dpkg-deb", ["--contents", join(out, file)], { encoding: "utf8" });
      const rows = listed
        .trimEnd()
        .split("\n")
        .map((line) => line.split(/\s+/));
      expect(new Set(rows.map(([, owner]) => owner))).toEqual(new Set(["root/root"]));
      const modes = Object.fromEntries(rows.map((row) => [row[5]!, row[0]!]));
      expect(modes).toMatchObject({
        "./usr/bin/": "drwxr-xr-x",
        [`./usr/bin/${name}`]: "-rwxr-xr-x",
        [`./usr/lib/systemd/system/${name}.service`]: "-rw-r--r--",
        [`./etc/${name}/${name}.env`]: "-rw-r-----",
      });

      const into = join(out, `unpacked-${name}-${architecture}`);
      execFileSync("dpkg-deb", ["--raw-extract", join(out, file), into]);
      expect(execFileSync("sh", [join(into, "usr/bin", name)], { encoding: "utf8" })).toBe(
        `${name} for ${system}\n`,
      );
      execFileSync("md5sum", ["--check", "--quiet", "DEBIAN/md5sums"], { cwd: into });
      const conffiles = readFileSync(join(into, "DEBIAN/conffiles"), "utf8").trimEnd().split("\n");
      for (const path of conffiles) expect(existsSync(join(into, path)), path).toBe(true);
      expect(conffiles.every((path) => path.startsWith(`/etc/${name}/`))).toBe(true);
      for (const script of ["postinst", "prerm", "postrm"]) {
        expect(statSync(join(into, "DEBIAN", script)).mode & 0o777).toBe(0o755);
      }
    }
  }
  execFileSync("sha256sum", ["--check", "--quiet", "SHA256SUMS"], { cwd: out });
});

/** dpkg runs the scripts of a package as root alone. */
const canInstall = hasDpkg && process.getuid?.() === 0 && existsSync("/usr/bin/dpkg");
if (!canInstall) noticeSkipped("the installation of a package", "dpkg and root are needed");

test.runIf(canInstall)("dpkg takes a package into a root of its own", () => {
  const { out } = build(["--format", "deb", "--system", "linux-x64"], pathOf(debian));
  const into = join(out, "root");
  for (const folder of ["var/lib/dpkg/info", "var/lib/dpkg/updates", "run"])
    mkdirSync(join(into, folder), { recursive: true });
  for (const file of ["status", "available"]) writeFileSync(join(into, "var/lib/dpkg", file), "");
  // Unpacked alone: the scripts of a configuration would need a whole system in that root.
  const dpkg = (...args: string[]) =>
    execFileSync(
      "dpkg",
      [`--root=${into}`, "--force-not-root", "--force-depends", "--force-architecture", ...args],
      { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
    );
  const deb = join(out, "piniond_1.2.0~rc.1-1_amd64.deb");
  dpkg("--unpack", deb);
  expect(dpkg("--status", "piniond")).toContain("Status: install ok unpacked");
  expect(statSync(join(into, "usr/bin/piniond")).mode & 0o777).toBe(0o755);
  expect(statSync(join(into, "usr/lib/systemd/system/piniond.service")).isFile()).toBe(true);
  // dpkg puts configuration beside its place until the package is configured.
  expect(readdirSync(join(into, "etc/piniond")).sort()).toEqual([
    "device.toml.dpkg-new",
    "piniond.env.dpkg-new",
  ]);
});

test("without nfpm a wanted .rpm is refused in words, after the .deb is made", () => {
  const { status, stderr, out } = build(["--system", "linux-x64"], pathOf(debian));
  expect(status).toBe(1);
  expect(stderr).toContain("nfpm is not on the PATH");
  expect(stderr).toContain("-> install nfpm (https://nfpm.goreleaser.com/docs/install/)");
  const made = readdirSync(out);
  expect(made.filter((name) => name.endsWith(".deb")).length).toBe(hasDpkg ? 2 : 0);
  const none = build(["--format", "deb"], pathOf(["rm"]));
  expect([none.status, none.stderr]).toEqual([1, expect.stringContaining("dpkg-deb makes a .deb, too")]);
});

test("what is missing or changed is said, with the command to give", () => {
  const cases: [string[], string][] = [
    [["--from", join(place, "nowhere")], "npm run build:executables"],
    [["--system", "linux-riscv64"], "has no pinion"],
    [["--program", "other"], "packages are piniond, pinion"],
    [["--format", "apk"], "formats are deb, rpm"],
  ];
  for (const [args, words] of cases) {
    const { status, stderr } = build(args, pathOf(debian));
    expect([args, status]).toEqual([args, 1]);
    if (!args.includes("--system")) expect(stderr).toContain(words);
    else expect(stderr).toMatch(/has no pinion/);
    expect(stderr).toContain("  -> ");
  }
  const file = join(from, "piniond-linux-arm64.gz");
  const before = readFileSync(file);
  writeFileSync(file, gzipSync("something else"));
  try {
    const { status, stderr } = build(["--format", "deb"], pathOf(debian));
    expect([status, stderr]).toEqual([1, expect.stringContaining("another digest than its manifest says")]);
  } finally {
    writeFileSync(file, before);
  }
});

test("the configuration of nfpm names files that exist, and everything that the .deb holds", () => {
  const { out } = build(["--system", "linux-x64"], pathOf(debian));
  for (const name of names) {
    const config = JSON.parse(readFileSync(join(out, `${name}_linux-x64.nfpm.yaml`), "utf8")) as {
      name: string;
      version: string;
      arch: string;
      contents: { src: string; dst: string; type?: string }[];
      scripts: Record<string, string>;
    };
    expect(config).toMatchObject({ name, version: "1.2.0-rc.1", arch: "amd64" });
    for (const path of [...config.contents.map(({ src }) => src), ...Object.values(config.scripts)])
      expect(existsSync(path), path).toBe(true);
    expect(config.contents.map(({ dst }) => dst)).toContain(`/usr/lib/systemd/system/${name}.service`);
    expect(
      config.contents
        .filter(({ dst }) => dst.startsWith("/etc/"))
        .every(({ type }) => type === "config|noreplace"),
    ).toBe(true);
  }
});

const nfpm = findProgram("nfpm", process.env.PINION_TEST_NFPM);
if (!nfpm)
  noticeSkipped("packages by nfpm, and .rpm", "no nfpm here (https://nfpm.goreleaser.com/docs/install/)");

test.runIf(nfpm)("nfpm makes a .deb with the same files, and a .rpm", () => {
  const path = pathOf([...debian]);
  const own = build(["--format", "deb", "--system", "linux-x64"], path);
  execFileSync("ln", ["-s", nfpm!, join(path, "nfpm")]);
  const theirs = build(["--system", "linux-x64"], path);
  expect([theirs.status, theirs.stderr]).toEqual([0, expect.stringContaining("4 packages")]);
  expect(readdirSync(theirs.out).filter((name) => name.endsWith(".rpm"))).toHaveLength(2);
  if (!hasDpkg) return;
  for (const name of names) {
    const contentsOf = (out: string) =>
      execFileSync(
        "dpkg-deb",
        [
          "--contents",
          join(out, readdirSync(out).find((file) => file.startsWith(`${name}_1`) && file.endsWith(".deb"))!),
        ],
        { encoding: "utf8" },
      )
        .trimEnd()
        .split("\n")
        .map((line) => line.split(/\s+/))
        .filter(([mode]) => !mode!.startsWith("d"))
        .map((row) => `${row[0]} ${row[1]} ${row[5]}`)
        .sort();
    expect(contentsOf(theirs.out)).toEqual(contentsOf(own.out));
  }
});

const hasRpm = findProgram("rpm", undefined) !== undefined;
if (!hasRpm) noticeSkipped("a look into the .rpm", "no rpm here (apt-get install rpm)");

test.runIf(nfpm && hasRpm)(
  "nfpm makes packages that rpm reads, installs into a root of its own and removes",
  () => {
    const path = pathOf([...debian]);
    execFileSync("ln", ["-s", nfpm!, join(path, "nfpm")]);
    const wanted = ["--format", "rpm", "--system", "linux-x64"];
    const { status, stderr, out } = build(wanted, path);
    expect([status, stderr]).toEqual([0, expect.stringContaining("2 packages")]);
    const rpm = (...args: string[]) =>
      execFileSync("rpm", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    for (const name of names) {
      const file = join(out, `${name}-1.2.0~rc.1-1.x86_64.rpm`);
      expect(rpm("-qp", "--qf", "%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{LICENSE}", file)).toBe(
        `${name} 1.2.0~rc.1-1 x86_64 Apache-2.0`,
      );
      expect(rpm("-K", file)).toContain("digests OK");
      const files = rpm("-qpl", file).trim().split("\n");
      expect(files).toContain(`/usr/bin/${name}`);
      expect(files).toContain(`/usr/lib/systemd/system/${name}.service`);
      expect(rpm("-qpc", file).trim().split("\n")).toContain(`/etc/${name}/${name}.env`);
      for (const script of ["postinstall", "preuninstall", "postuninstall"]) {
        expect(rpm("-qp", "--scripts", file)).toContain(`${script} scriptlet`);
      }
      // A root of its own is entered by root alone.
      if (process.getuid?.() !== 0) continue;
      const folder = mkdtempSync(join(place, "root-"));
      const install = ["--root", folder, "--nodeps", "--noscripts"];
      rpm(...install, "-i", file);
      expect(execFileSync(join(folder, "usr/bin", name), { encoding: "utf8" })).toBe(
        `${name} for linux-x64\n`,
      );
      expect(statSync(join(folder, "usr/bin", name)).mode & 0o777).toBe(0o755);
      rpm(...install, "-e", name);
      expect(existsSync(join(folder, "usr/bin", name))).toBe(false);
    }
  },
);

test.runIf(hasVerify)("systemd takes the units as they are", () => {
  const folder = mkdtempSync(join(place, "units-"));
  for (const name of names) {
    // The program has to exist where the unit says; /bin/true stands for it.
    const unit = read(`ops/packages/${name}.service`);
    expect(unit).toContain(`ExecStart=/usr/bin/${name} `);
    const file = join(folder, `${name}.service`);
    writeFileSync(
      file,
      unit.replace(`/usr/bin/${name}`, "/bin/true").replaceAll(/^Documentation=.*\n/gm, ""),
    );
    const { status, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", file], {
      encoding: "utf8",
    });
    // Lines about other units of the machine do not count.
    expect([status, stderr.split("\n").filter((line) => line.includes(`${name}.service`))]).toEqual([0, []]);
  }
});

test("the units run what exists, as a user that the scripts make, with limits", () => {
  for (const name of names) {
    const unit = read(`ops/packages/${name}.service`);
    for (const line of [
      `User=${name}`,
      `StateDirectory=${name}`,
      "NoNewPrivileges=yes",
      "ProtectSystem=strict",
    ])
      expect(unit.split("\n")).toContain(line);
    const script = read(`ops/packages/${name}.postinstall.sh`);
    expect(script).toMatch(new RegExp(`useradd --system .* ${name}$`, "m"));
    for (const part of ["postinstall", "preremove", "postremove"])
      execFileSync("sh", ["-n", join(root, `ops/packages/${name}.${part}.sh`)]);
  }
  const start = /^ExecStart=\/usr\/bin\/piniond (.*)$/m.exec(read("ops/packages/piniond.service"))![1]!;
  expect(daemonArguments(start.split(" ")).slice(0, 2)).toEqual(["device", "run"]);
  // bubblewrap's namespaces and its new /proc do not come about under these.
  expect(read("ops/packages/piniond.service")).not.toMatch(
    /^(RestrictNamespaces|ProtectProc|ProtectKernelTunables|MemoryDenyWriteExecute)=/m,
  );
});

test("upgrades keep what runs, and removals alone stop it", () => {
  for (const name of names) {
    const bin = mkdtempSync(join(place, "bin-"));
    const log = join(bin, "log");
    writeFileSync(join(bin, "systemctl"), `#!/bin/sh\necho "$*" >>${log}\n`, { mode: 0o755 });
    const runScript = (part: string, argument: string) => {
      writeFileSync(log, "");
      // A folder that exists stands for the one by which systemd is recognised.
      const text = read(`ops/packages/${name}.${part}.sh`).replaceAll("/run/systemd/system", bin);
      execFileSync("sh", ["-c", text, "sh", argument], { env: { PATH: `${bin}:/usr/bin:/bin` } });
      return readFileSync(log, "utf8").trim();
    };
    for (const upgrade of ["upgrade", "1", "failed-upgrade"])
      expect(runScript("preremove", upgrade)).toBe("");
    for (const removal of ["remove", "0"])
      expect(runScript("preremove", removal)).toBe(`disable --now ${name}.service`);
    for (const removal of ["remove", "0", "1"])
      expect(runScript("postremove", removal)).toBe("daemon-reload");
    expect(read(`ops/packages/${name}.postremove.sh`)).toContain(
      `if [ "\${1:-}" = purge ]; then\n  rm -rf /var/lib/${name}\n`,
    );
  }
});

test("the configuration in the packages can be read, and names variables that exist", () => {
  expect(() => parseConfig(read("ops/packages/device.toml"))).not.toThrow();
  const uncommented = read("ops/packages/device.toml").replaceAll(/^# (?=\[|type|command)/gm, "");
  expect(uncommented).toContain("\n[executors.claude-code]\n");
  expect(() => parseConfig(uncommented)).not.toThrow();
  const variables = [...read("ops/packages/pinion.env").matchAll(/^# ([A-Z_]+)=/gm)].map(([, name]) => name!);
  expect(variables.length).toBeGreaterThan(3);
  expect(variables.filter((name) => !(name in serverSettings.shape))).toEqual([]);
});
