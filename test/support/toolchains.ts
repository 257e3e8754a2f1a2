/**
 * Other languages' tools for the daemons in examples/: made ready once and kept for later runs, or
 * visibly absent.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { mkdtemp, readdir } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { promisify } from "node:util";

const root = resolve(import.meta.dirname, "../..");
const run = promisify(execFile);

/** The command that starts a daemon, or the reason why the daemon cannot be started here. */
export type Toolchain = { command: string[]; env: Record<string, string> } | { missing: string };

/** A missing requirement of the machine, as opposed to a defect in the code. */
class Missing extends Error {}

/**
 * Python 3.11 with grpcio in a virtual environment, and stubs generated from this checkout's proto.
 */
export function pythonDaemon(): Promise<Toolchain> {
  return orMissing(async () => {
    const example = join(root, "examples/python");
    const requirements = readFileSync(join(example, "requirements.txt"), "utf8");
    const version = (await needed("python3", ["-c", "import sys; print(sys.version)"])).trim();
    await needed("python3", ["-c", "import sys; assert sys.version_info >= (3, 11), 'older than 3.11'"]);
    const venv = await once(`python-${digest(requirements, version)}`, async (directory) => {
      await needed("python3", ["-m", "venv", directory]);
      const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
      await needed(join(directory, "bin/python"), [...pip, "-r", join(example, "requirements.txt")]);
    });
    const python = join(venv, "bin/python");
    const stubs = await once(
      `python-stubs-${digest(requirements, version, await protoText())}`,
      async (out) => {
        mkdirSync(out, { recursive: true });
        const files = [...(await protoFiles("pinion/v1")), ...(await protoFiles("buf/validate"))];
        const args = [
          "-m",
          "grpc_tools.protoc",
          "-I",
          "proto",
          `--python_out=${out}`,
          `--grpc_python_out=${out}`,
        ];
        await run(python, [...args, ...files], { cwd: root });
      },
    );
    return { command: [python, join(example, "daemon.py")], env: { PYTHONPATH: stubs } };
  });
}

/** The daemon in Go, built with stubs generated from this checkout's proto. */
export function goDaemon(): Promise<Toolchain> {
  return orMissing(async () => {
    const example = join(root, "examples/go");
    const names = ["main.go", "go.mod", "go.sum", "buf.gen.yaml"];
    const sources = names.map((name) => readFileSync(join(example, name), "utf8"));
    const bin = join(root, "node_modules/.bin");
    const env = { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}`, GOTOOLCHAIN: "local" };
    const version = await needed("go", ["version"]);
    const built = await once(`go-${digest(version, ...sources, await protoText())}`, async (out) => {
      mkdirSync(out, { recursive: true });
      for (const name of names) await run("cp", [join(example, name), out]);
      const options = { cwd: out, env };
      // Also reports a Go older than go.mod's version.
      await needed("go", ["mod", "download"], options);
      // A build from scratch takes a minute of CPU; a slower machine continues the build at the
      // next run.
      await needed(
        "go",
        ["build", "google.golang.org/grpc", "google.golang.org/protobuf/cmd/protoc-gen-go"],
        options,
      );
      const paths = ["pinion/v1", "buf/validate"].flatMap((path) => ["--path", join(root, "proto", path)]);
      await run("buf", ["generate", join(root, "proto"), ...paths], options);
      await run("go", ["build", "-o", "daemon", "."], options);
    });
    return { command: [join(built, "daemon")], env: {} };
  });
}

/** Time limit for commands that a machine may lack, in ms. */
const neededWithinMs = 90_000;

/** Runs a command that may be missing; returns its output. */
async function needed(
  program: string,
  args: string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  try {
    return (await run(program, args, { ...options, timeout: neededWithinMs })).stdout;
  } catch (error) {
    const { killed } = error as { killed?: boolean };
    const why = killed ? `not within ${neededWithinMs} ms` : lastLine(error);
    throw new Missing(`${program} ${args.slice(0, 3).join(" ")}: ${why}`);
  }
}

async function orMissing(prepare: () => Promise<Toolchain>): Promise<Toolchain> {
  try {
    return await prepare();
  } catch (error) {
    if (error instanceof Missing) return { missing: error.message };
    throw error;
  }
}

/**
 * Creates a directory once for all runs of this user on this machine. The directory is created
 * under another name and then moved, so that two runs at once, or a killed run, leave no partial
 * directory.
 */
async function once(name: string, make: (directory: string) => Promise<void>): Promise<string> {
  const { uid } = userInfo();
  const cache = join(tmpdir(), `pinion-toolchains-${uid}`);
  mkdirSync(cache, { recursive: true, mode: 0o700 });
  if (uid >= 0 && statSync(cache).uid !== uid) throw new Error(`${cache} is another user's`);
  const place = join(cache, name);
  if (existsSync(place)) return place;
  const making = await mkdtemp(join(cache, "making-"));
  try {
    const directory = join(making, "made");
    await make(directory);
    try {
      renameSync(directory, place);
    } catch (error) {
      // Another run created the same directory first.
      if (!existsSync(place)) throw error;
    }
    return place;
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
}

async function protoFiles(folder: string): Promise<string[]> {
  return (await readdir(join(root, "proto", folder))).sort().map((name) => `${folder}/${name}`);
}

async function protoText(): Promise<string> {
  const files = await protoFiles("pinion/v1");
  return files.map((file) => readFileSync(join(root, "proto", file), "utf8")).join("");
}

function digest(...parts: string[]): string {
  return createHash("sha256").update(parts.join("\0")).digest("hex").slice(0, 16);
}

function lastLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string };
  return (stderr?.trim().split("\n").at(-1) || message.split("\n")[0]) ?? "";
}
