import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Time limit of the notifier, in ms. */
const NOTIFIER_DEADLINE_MS = 10_000;

/** Shows a text on the desktop. */
export type Notifier = (title: string, body: string) => void;

/**
 * The desktop's notifier (`notify-send`, `osascript`), or undefined without a notifier program.
 * Never throws and never waits.
 */
export function desktopNotifier(env: NodeJS.ProcessEnv): Notifier | undefined {
  const tool =
    process.platform === "darwin" ? "osascript" : process.platform === "linux" ? "notify-send" : undefined;
  const program = tool === undefined ? undefined : findProgram(tool, env.PATH ?? "");
  if (program === undefined) return undefined;
  return (title, body) => {
    const args =
      tool === "osascript"
        ? [
            // The texts are arguments of the script, never part of the script.
            ...["-e", "on run argv"],
            ...["-e", "display notification (item 2 of argv) with title (item 1 of argv)"],
            ...["-e", "end run"],
            title,
            body,
          ]
        : ["--app-name=Pinion", "--", title, body];
    try {
      const child = spawn(program, args, { stdio: "ignore", timeout: NOTIFIER_DEADLINE_MS, env });
      child.on("error", () => {});
      child.unref();
    } catch {
      // Without a desktop there is no notification.
    }
  };
}

function findProgram(name: string, path: string): string | undefined {
  for (const directory of path.split(delimiter).filter((part) => part !== "")) {
    const candidate = join(directory, name);
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Try the next directory.
    }
  }
  return undefined;
}
