/**
 * Conceals a daemon's secrets. On Linux, processes of the same user can read each other's
 * environment and command line, and a daemon's programs run as its user. So a daemon started with
 * secrets in either restarts itself without these: the same process, with the secrets in a file
 * deleted before any program starts.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** Variable with the path of the handover file. */
const handover = "PINION_HANDOVER";

/**
 * Variables without secrets, needed from the start by the system, its loader (LD_LIBRARY_PATH:
 * without it a program may not start), the libraries that read them at their load, Node and the
 * service manager.
 */
const open =
  /^(PATH|HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|SHLVL|_|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TERM|COLORTERM|NO_COLOR|FORCE_COLOR|DISPLAY|WAYLAND_DISPLAY|XDG_\w+|DBUS_SESSION_BUS_ADDRESS|SSH_AUTH_SOCK|NODE_\w+|npm_\w+|INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|SYSTEMD_\w+|MANAGERPID|MAINPID|WATCHDOG_\w+|CREDENTIALS_DIRECTORY|SSL_CERT_\w+|\w*CA_BUNDLE|LD_\w+|GLIBC_TUNABLES|MALLOC_\w+|LOCPATH|TZDIR|OPENSSL_(CONF|MODULES|ENGINES)|UV_\w+|FAKETIME\w*|DONT_FAKE_MONOTONIC|PINION_(STATE_DIR|DATA|LOG_\w+|TRACE_RATIO|DEBUG|URL|HANDOVER))$/;
const proxy = /^(https?|all|no)_proxy$/i;

/** True if other processes of the same user may read the variable. */
export function isOpen(name: string, value: string): boolean {
  return open.test(name) || (proxy.test(name) && !value.includes("@"));
}

/** True if a command line starts a daemon. */
export function startsDaemon(args: readonly string[]): boolean {
  return args.includes("worker") || args[args.indexOf("device") + 1] === "run";
}

/** A command line without its token, and the token. */
export function withoutToken(args: readonly string[]): { args: string[]; token: string | undefined } {
  const at = args.indexOf("--token");
  if (at >= 0) return { args: args.toSpliced(at, 2), token: args[at + 1] };
  const joined = args.findIndex((argument) => argument.startsWith("--token="));
  if (joined < 0) return { args: [...args], token: undefined };
  return { args: args.toSpliced(joined, 1), token: args[joined]?.slice("--token=".length) };
}

/**
 * Reads the handed-over secrets, or restarts the process if there are secrets to conceal; then does
 * not return. Does nothing for commands other than daemons, and on systems without execve.
 */
export function concealSecrets(
  env: NodeJS.ProcessEnv,
  args: readonly string[],
  self: readonly [string, ...string[]],
): void {
  const file = env[handover];
  if (file !== undefined) {
    delete env[handover];
    Object.assign(env, JSON.parse(readFileSync(file, "utf8")));
    rmSync(dirname(file), { recursive: true, force: true });
    return;
  }
  if (process.platform !== "linux" || typeof process.execve !== "function" || !startsDaemon(args)) return;
  const { cut, secret, kept } = sortedOut(env, args);
  if (Object.keys(secret).length === 0) return;
  const [program, ...first] = self;
  become(program, [...process.execArgv, ...first, ...cut.args], handedOver(kept, secret));
}

/** True if a process can become another program here. */
export function canBecome(): boolean {
  return typeof process.execve === "function";
}

/**
 * Makes this process another program, with the same process id: the daemon's program after an
 * upgrade. The secrets of the environment are handed over in a file. Does not return.
 */
export function becomeConcealed(program: string, args: readonly string[], env: NodeJS.ProcessEnv): never {
  const { cut, secret, kept } = sortedOut(env, args);
  const isEmpty = Object.keys(secret).length === 0;
  return become(program, cut.args, isEmpty ? kept : handedOver(kept, secret));
}

function sortedOut(env: NodeJS.ProcessEnv, args: readonly string[]) {
  const cut = withoutToken(args);
  const entries = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const],
  );
  const secret = Object.fromEntries(entries.filter(([name, value]) => !isOpen(name, value)));
  if (cut.token !== undefined) secret.PINION_TOKEN = cut.token;
  return { cut, secret, kept: Object.fromEntries(entries.filter(([name, value]) => isOpen(name, value))) };
}

/** The open variables, and the secrets in a file. */
function handedOver(kept: Record<string, string>, secret: Record<string, string>): Record<string, string> {
  // In memory, if the system has /dev/shm.
  const directory = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "pinion-"));
  const path = join(directory, "environment");
  writeFileSync(path, JSON.stringify(secret), { mode: 0o600, flag: "wx" });
  return { ...kept, [handover]: path };
}

function become(program: string, args: readonly string[], env: Record<string, string>): never {
  // Removes Node's warning about an experimental function, noise in a daemon's log.
  process.removeAllListeners("warning");
  return process.execve!(program, [program, ...args], env);
}
