/** Servers used by tests if installed on the machine. */
import { randomInt } from "node:crypto";
import { accessSync, constants } from "node:fs";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";

/**
 * The path of a program: the given path, or from the PATH, or from the distributions' directories
 * of servers.
 */
export function findProgram(name: string, given: string | undefined): string | undefined {
  const folders = [
    ...(process.env.PATH ?? "").split(delimiter),
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
  ];
  return [given, ...folders.map((folder) => join(folder, name))].find(isProgram);
}

function isProgram(path: string | undefined): boolean {
  try {
    if (!path) return false;
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Below 32,768, where Linux begins with ports for connections. */
const ports = { min: 12_000, max: 32_000 };
const portTriesMax = 20;

/**
 * A port of this machine at which nothing listens, outside of the range from which the system gives
 * ports to connections: there, another program may have it before the caller, or while the caller's
 * program is away.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; ; tries++) {
    const port = randomInt(ports.min, ports.max);
    const server = createServer();
    try {
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen(port, "127.0.0.1", resolve);
      });
      await new Promise((resolve) => server.close(resolve));
      return port;
    } catch (error) {
      if (tries >= portTriesMax) throw error;
    }
  }
}
