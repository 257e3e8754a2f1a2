import { mkdir, stat } from "node:fs/promises";
import { DeviceError } from "./device/errors.ts";

const everybodyMayWrite = 0o002;

/**
 * Creates a directory with mode 0700. Throws DeviceError `unusable` for an existing directory with
 * write permission for all users: another user could put a false identity or false results there.
 */
export async function ensurePrivateDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  if (process.platform === "win32") return;
  const { mode } = await stat(path);
  if ((mode & everybodyMayWrite) === 0) return;
  const shown = (mode & 0o7777).toString(8).padStart(4, "0");
  throw new DeviceError(
    "unusable",
    `everybody may write in ${path} (mode ${shown}), and put another identity there; mend it with: chmod 700 '${path}'`,
  );
}
