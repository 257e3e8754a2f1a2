/**
 * Isolation of a program from its daemon. `run_as` starts the program as another user. `isolate`
 * (Linux, by bubblewrap) gives the program its own namespaces: its processes see no other
 * processes, all end with the program, and the daemon's files are hidden. Network, home and working
 * directory stay the same.
 */
import { execFileSync } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { messageOf } from "../device/errors.ts";

/** Another user for starting programs. */
export interface RunAs {
  name: string;
  uid: number;
  gid: number;
  home: string;
  shell: string;
}

/** Confinement of one executor's programs. */
export interface Confinement {
  runAs: RunAs | undefined;
  /** Path of bubblewrap; undefined: not isolated. */
  bwrap: string | undefined;
  /** The daemon's files and directories hidden from an isolated program. */
  hidden: string[];
}

export const unconfined: Confinement = { runAs: undefined, bwrap: undefined, hidden: [] };

/** Confinement settings of an executor. */
export interface ConfinementSettings {
  runAs: string | undefined;
  isIsolated: boolean;
}

/**
 * Checks the settings on this machine and returns the confinement or the problem; with a problem
 * the program is not started. The check of bubblewrap starts it once.
 */
export function confinementOf(
  settings: ConfinementSettings,
  options: { hidden: string[]; path: string | undefined },
): Confinement | { problem: string } {
  const runAs = settings.runAs === undefined ? undefined : findUser(settings.runAs);
  if (runAs !== undefined && "problem" in runAs) return runAs;
  const isOther = runAs !== undefined && runAs.uid !== process.getuid?.();
  if (isOther && process.getuid?.() !== 0) {
    return {
      problem: `run_as = "${runAs.name}" needs a daemon that runs as root (pinion device install --system as root), and this one runs as ${ownName()}`,
    };
  }
  if (settings.isIsolated) {
    const problem = isolationProblem(options.path, isOther ? runAs : undefined);
    if (problem !== undefined) return { problem };
  }
  return {
    runAs: isOther ? runAs : undefined,
    bwrap: settings.isIsolated ? findInPath("bwrap", options.path) : undefined,
    // Another user has no access to the files by their modes and could not mount over their paths.
    hidden: isOther ? [] : options.hidden,
  };
}

const checked = new Map<string, { problem: string | undefined; atMs: number }>();
/**
 * Lifetime of a check of bubblewrap, in ms: a person may install the package and edit the file
 * again.
 */
const CHECK_MS = 30_000;
const CHECK_DEADLINE_MS = 10_000;

/**
 * Reason why bubblewrap cannot isolate here, found by a trial start; undefined if isolation works.
 */
export function isolationProblem(path: string | undefined, runAs?: RunAs): string | undefined {
  if (process.platform !== "linux")
    return "isolate = true is for Linux; elsewhere use run_as, or a machine of its own";
  const bwrap = findInPath("bwrap", path);
  if (bwrap === undefined) return 'isolate = true needs bubblewrap: install the package "bubblewrap"';
  const key = `${bwrap} ${runAs?.uid ?? ""}`;
  const known = checked.get(key);
  if (known !== undefined && performance.now() - known.atMs < CHECK_MS) return known.problem;
  let problem: string | undefined;
  try {
    execFileSync(bwrap, [...namespaces(), "--", "true"], {
      stdio: ["ignore", "ignore", "pipe"],
      timeout: CHECK_DEADLINE_MS,
      cwd: "/",
      ...(runAs === undefined ? {} : { uid: runAs.uid, gid: runAs.gid }),
    });
  } catch (error) {
    const said = String((error as { stderr?: Buffer }).stderr ?? "").trim() || messageOf(error);
    problem = `isolate = true does not work here: ${said}; unprivileged user namespaces may be turned off (sysctl kernel.apparmor_restrict_unprivileged_userns, kernel.unprivileged_userns_clone, user.max_user_namespaces)`;
  }
  checked.set(key, { problem, atMs: performance.now() });
  return problem;
}

/** Start parameters of a program under a confinement. */
export interface Start {
  command: [string, ...string[]];
  uid?: number;
  gid?: number;
  env: Record<string, string>;
}

/**
 * The command line of a confined program. `shown`: visible directories below hidden directories.
 * The program is searched here, because bubblewrap's message for a missing program is unclear.
 */
export function confine(
  confinement: Confinement,
  program: {
    command: [string, ...string[]];
    env: Record<string, string>;
    cwd: string | undefined;
    shown: string[];
  },
): Start | { missing: string } {
  const { runAs, bwrap } = confinement;
  const env = runAs === undefined ? program.env : environmentAs(runAs, program.env);
  const user = runAs === undefined ? {} : { uid: runAs.uid, gid: runAs.gid };
  if (bwrap === undefined) return { command: program.command, env, ...user };
  const [name, ...args] = program.command;
  if (findInPath(name, env.PATH) === undefined) return { missing: name };
  const masks = confinement.hidden.flatMap((path) => mask(path));
  const shown = program.shown.flatMap((path) => ["--bind", path, path]);
  const runtime = env.XDG_RUNTIME_DIR;
  // A program could start processes outside through a service manager's socket.
  const sockets = [runtime, "/run/systemd", "/run/dbus", "/run/credentials"].flatMap((path) =>
    path === undefined ? [] : mask(path),
  );
  const directory = program.cwd === undefined ? [] : ["--chdir", program.cwd];
  return {
    command: [bwrap, ...namespaces(), ...sockets, ...masks, ...shown, ...directory, "--", name, ...args],
    env,
    ...user,
  };
}

/** Options of every isolated program. */
function namespaces(): string[] {
  return [
    ...["--bind", "/", "/", "--dev", "/dev", "--dev-bind-try", "/dev/dri", "/dev/dri"],
    ...["--ro-bind-try", "/sys", "/sys", "--proc", "/proc"],
    ...["--unshare-pid", "--unshare-ipc", "--die-with-parent", "--cap-drop", "ALL"],
  ];
}

function mask(path: string): string[] {
  try {
    // The mount covers the link's target; a mount over the link itself would leave the target
    // visible.
    const real = realpathSync(path);
    return statSync(real).isDirectory() ? ["--tmpfs", real] : ["--ro-bind", "/dev/null", real];
  } catch {
    // A missing path needs no mask.
    return [];
  }
}

function environmentAs(user: RunAs, env: Record<string, string>): Record<string, string> {
  const { XDG_RUNTIME_DIR: _runtime, ...rest } = env;
  return { ...rest, HOME: user.home, USER: user.name, LOGNAME: user.name, SHELL: user.shell };
}

/** Finds a program on the PATH, as the system does. */
export function findInPath(name: string, path: string | undefined): string | undefined {
  const places = name.includes("/")
    ? [name]
    : (path ?? "/usr/local/bin:/usr/bin:/bin")
        .split(delimiter)
        .filter((directory) => directory !== "")
        .map((directory) => join(directory, name));
  return places.find((place) => {
    try {
      accessSync(place, constants.X_OK);
      return statSync(place).isFile();
    } catch {
      return false;
    }
  });
}

function findUser(name: string): RunAs | { problem: string } {
  if (process.platform === "win32") return { problem: "run_as is not for Windows" };
  const found = (process.platform === "darwin" ? macLine(name) : passwdLine(name))?.split(":");
  if (found === undefined) {
    return { problem: `there is no user "${name}" on this machine (run_as); make one with useradd` };
  }
  const [user = name, , uid, gid, , home = "/", shell = "/bin/sh"] = found;
  return { name: user, uid: Number(uid), gid: Number(gid), home, shell };
}

/** A user's line in the format of passwd(5), from any user database of the system. */
function passwdLine(name: string): string | undefined {
  const getent = ["/usr/bin/getent", "/bin/getent"].find((path) => existsSync(path));
  try {
    const text =
      getent === undefined
        ? readFileSync("/etc/passwd", "utf8")
        : execFileSync(getent, ["passwd", name], { encoding: "utf8", timeout: CHECK_DEADLINE_MS });
    const line = text.split("\n").find((line) => line.startsWith(`${name}:`));
    if (line !== undefined) return line;
  } catch {
    // getent exits with 2 for an unknown user.
  }
  return undefined;
}

/** The same from macOS's directory service. */
function macLine(name: string): string | undefined {
  const ask = (...command: [string, ...string[]]) => {
    const [program, ...args] = command;
    return execFileSync(program, args, { encoding: "utf8", timeout: CHECK_DEADLINE_MS }).trim();
  };
  try {
    const home = ask("/usr/bin/dscl", ".", "-read", `/Users/${name}`, "NFSHomeDirectory").replace(
      /^\S+\s/,
      "",
    );
    return [
      name,
      "",
      ask("/usr/bin/id", "-u", name),
      ask("/usr/bin/id", "-g", name),
      "",
      home,
      "/bin/sh",
    ].join(":");
  } catch {
    return undefined;
  }
}

function ownName(): string {
  const uid = process.getuid?.();
  return uid === 0 ? "root" : `user ${uid}`;
}
