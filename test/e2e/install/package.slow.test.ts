/**
 * npm's package of the command as a user gets it: packed from this checkout, installed into an
 * empty prefix, and tried with every Node on this machine. No registry is asked: optional
 * dependencies come from this checkout.
 */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { transform } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { processorSecondsOf } from "../../../scripts/lib/processor-time.ts";

const root = resolve(import.meta.dirname, "../../..");
const run = promisify(execFile);
const { version, optionalDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  version: string;
  optionalDependencies: Record<string, string>;
};

/** Also for the embedded PostgreSQL's own user, where the tests run as root. */
const place = mkdtempSync(join(tmpdir(), "pinion-command-"));
const prefix = join(place, "prefix");
const installed = join(prefix, "lib/node_modules/@pinion/cli");
const pinion = join(prefix, "bin/pinion");
const npmEnv = { PATH: process.env.PATH ?? "", HOME: place };

/** Every Node installed on this machine, by version; the tests' own Node is among them. */
function installedNodes(): { version: string; path: string }[] {
  const found = new Map<string, string>([[process.versions.node, process.execPath]]);
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(directory, "node");
    if (!existsSync(path)) continue;
    const version = execFileSync(path, ["-p", "process.versions.node"], { encoding: "utf8" }).trim();
    if (!found.has(version)) found.set(version, path);
  }
  return [...found].map(([version, path]) => ({ version, path }));
}

const nodes = installedNodes();
const oldNode = nodes.find(({ version }) => Number(version.split(".")[0]) < 24);

/** Runs the installed command like a shell with this Node first in its PATH. */
function type(node: string, args: string[], cwd = place) {
  const env = { PATH: `${dirname(node)}:/usr/bin:/bin`, HOME: place, NO_COLOR: "1" };
  const ended = spawnSync(pinion, args, { cwd, env, encoding: "utf8", timeout: 90_000 });
  return { code: ended.status, out: ended.stdout, err: ended.stderr };
}

function bringOptional(): void {
  const modules = join(installed, "node_modules");
  mkdirSync(modules, { recursive: true });
  for (const name of Object.keys(optionalDependencies)) {
    const from = join(root, "node_modules", name);
    if (existsSync(from)) symlinkSync(from, join(modules, name));
  }
}

beforeAll(async () => {
  const { stdout } = await run("npm", ["pack", "--json", "--silent", "--pack-destination", place], {
    cwd: root,
    env: npmEnv,
    maxBuffer: 16 * 1024 * 1024,
  });
  const [{ filename }] = JSON.parse(stdout.slice(stdout.indexOf("["))) as [{ filename: string }];
  const tarball = join(place, filename);
  await run("npm", ["install", "--global", "--offline", "--omit=optional", "--prefix", prefix, tarball], {
    cwd: place,
    env: npmEnv,
  });
}, 120_000);

afterAll(() => rmSync(place, { recursive: true, force: true }));

test("the package holds built JavaScript and its papers, and needs no other package", () => {
  const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  expect(manifest).toMatchObject({ name: "@pinion/cli", bin: { pinion: "bin/pinion.cjs" } });
  expect(manifest).not.toHaveProperty("private");
  expect(manifest.dependencies ?? {}).toEqual({});
  for (const file of ["README.md", "LICENSE", "dist/pinion/main.js", "dist/pinion/licenses.txt"]) {
    expect(existsSync(join(installed, file)), file).toBe(true);
  }
  for (const folder of ["src", "test", "clients"])
    expect(existsSync(join(installed, folder)), folder).toBe(false);
});

test("a Node that is too old says so in words, and what to do, where npm brought no newer one", () => {
  // The launcher's answer depends on Node's version, which a preloaded file sets here.
  const pretend = join(place, "pretend.cjs");
  writeFileSync(pretend, 'Object.defineProperty(process.versions, "node", { value: "16.20.2" });\n');
  const ended = spawnSync(process.execPath, ["--require", pretend, pinion, "--help"], { encoding: "utf8" });
  expect(ended.status).toBe(1);
  expect(ended.stdout).toBe("");
  expect(ended.stderr).toMatch(/^error: pinion needs Node 24 or newer, and this is Node 16\.20\.2\n/);
  expect(ended.stderr).not.toContain("    at ");
});

test("the launcher is written in the syntax of an old Node", async () => {
  // esbuild cannot translate newer syntax to ES5, and names the line at fault.
  const text = readFileSync(join(installed, "bin/pinion.cjs"), "utf8");
  const { code } = await transform(text, { target: "es5", minifyWhitespace: true });
  expect(code).toBe((await transform(text, { minifyWhitespace: true })).code);
  expect(text).not.toContain("node:");
});

test("with the packages that npm brings it starts on every Node that is here", () => {
  bringOptional();
  for (const node of nodes) {
    expect(type(node.path, ["--version"]), node.version).toEqual({ code: 0, out: `${version}\n`, err: "" });
    expect(type(node.path, ["--help"]).out, node.version).toContain("Usage: pinion");
    const wrong = type(node.path, ["runs", "lst"]);
    expect(wrong.code, node.version).toBe(2);
  }
});

test("the help takes 150 ms of a processor at most, and little more than the start of Node itself", () => {
  const bare = (node: string) => processorSecondsOf([node, "-e", "0"], npmEnv);
  for (const node of nodes) {
    const env = { PATH: `${dirname(node.path)}:/usr/bin:/bin`, HOME: place };
    const help = processorSecondsOf([pinion, "--help"], env);
    // An old Node starts the Node that npm brought.
    const isOld = Number(node.version.split(".")[0]) < 24;
    const own = help - bare(node.path) - (isOld ? bare(process.execPath) : 0);
    expect(own, `beyond the start of Node ${node.version}`).toBeLessThan(0.1);
    if (!isOld) expect(help, node.version).toBeLessThan(0.15);
  }
}, 120_000);

test("`pinion up` brings everything up from the package alone, and stores a first result", () => {
  const home = join(place, "home");
  mkdirSync(home);
  const node = oldNode ?? nodes[0]!;
  const ended = type(node.path, ["up", "--once", "--json", "--port", "0"], home);
  expect(ended.code, ended.err).toBe(0);
  const first = JSON.parse(ended.out.trim().split("\n").at(-1)!);
  expect(first).toMatchObject({ status: "completed" });
  expect(first.output).toContain("Report of ");
  // The device's program is the package itself, at any location.
  expect(readFileSync(join(home, ".pinion/device.toml"), "utf8")).toContain("machine-report");
}, 120_000);
