/**
 * A daemon's programs are its user's, and on Linux that user's processes may read each other's environment and command line
 * for as long as they live. So a daemon that was started with secrets in either starts itself anew without them: the same process,
 * with the secrets handed over in a file that is gone before any program is started.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** Where the new start finds what was taken out of its environment. */
const handover = "PINION_HANDOVER";

/** Variables that hold no secrets: what the system, Node and the service manager need from the beginning. */
const open =
  /^(PATH|HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|SHLVL|_|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TERM|COLORTERM|NO_COLOR|FORCE_COLOR|DISPLAY|WAYLAND_DISPLAY|XDG_\w+|DBUS_SESSION_BUS_ADDRESS|SSH_AUTH_SOCK|NODE_\w+|npm_\w+|INVOCATION_ID|JOURNAL_STREAM|NOTIFY_SOCKET|SYSTEMD_\w+|MANAGERPID|MAINPID|WATCHDOG_\w+|CREDENTIALS_DIRECTORY|SSL_CERT_\w+|\w*CA_BUNDLE|PINION_(STATE_DIR|DATA|LOG_\w+|TRACE_RATIO|DEBUG|URL|HANDOVER))$/;
const proxy = /^(https?|all|no)_proxy$/i;

/** Whether a variable may be seen by whoever runs as the same user. */
export function isOpen(name: string, value: string): boolean {
  return open.test(name) || (proxy.test(name) && !value.includes("@"));
}

/** Whether a command line starts a daemon. */
export function startsDaemon(args: readonly string[]): boolean {
  return args.includes("worker") || args[args.indexOf("device") + 1] === "run";
}

/** A command line without the token that is in it, and that token. */
export function withoutToken(args: readonly string[]): { args: string[]; token: string | undefined } {
  const at = args.indexOf("--token");
  if (at >= 0) return { args: args.toSpliced(at, 2), token: args[at + 1] };
  const joined = args.findIndex((argument) => argument.startsWith("--token="));
  if (joined < 0) return { args: [...args], token: undefined };
  return { args: args.toSpliced(joined, 1), token: args[joined]?.slice("--token=".length) };
}

/**
 * Takes back what was handed over, or starts the process anew if there is something to conceal; does not return then. Does
 * nothing for commands that are no daemons, and where a process cannot be replaced.
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
  const cut = withoutToken(args);
  const entries = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const],
  );
  const secret = Object.fromEntries(entries.filter(([name, value]) => !isOpen(name, value)));
  if (cut.token !== undefined) secret.PINION_TOKEN = cut.token;
  if (Object.keys(secret).length === 0) return;
  const kept = Object.fromEntries(entries.filter(([name, value]) => isOpen(name, value)));
  // In memory, where there is such a place.
  const directory = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "pinion-"));
  const path = join(directory, "environment");
  writeFileSync(path, JSON.stringify(secret), { mode: 0o600, flag: "wx" });
  const [program, ...first] = self;
  const own = [program, ...process.execArgv, ...first, ...cut.args];
  // Node says that it may change, which is nothing for a daemon's log.
  process.removeAllListeners("warning");
  process.execve(program, own, { ...kept, [handover]: path });
}
