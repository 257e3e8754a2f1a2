import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { identityOfDirectory } from "./private-directory.ts";
import { readRegularFileSync } from "./regular-file.ts";

/**
 * Fingerprint of a daemon's machine, for noticing a copy of the state on another machine. Hashed
 * together with the installation's id, so the hashes of two installations on a machine differ.
 * Empty if the system gives no id.
 */
export interface MachineFingerprint {
  /** Constant for the life of the system's installation. */
  machineHash: string;
  /** Constant until the next boot, or for the life of a container. */
  bootHash: string;
  /** For people. */
  hostName: string;
  /** For selectors of watchers. */
  arch: string;
  /**
   * Of the state directory, until the next boot: the directory's lock admits one daemon at a time,
   * so two daemons alive at once differ in it, and a daemon after a killed one does not. Random if
   * the system does not tell its boots apart, or the directory is not there yet.
   */
  daemonId: string;
  /** Start of the daemon, by the monotonic clock of this process. */
  startedAt: number;
}

const ASK_DEADLINE_MS = 5_000;
const FILE_BYTES_MAX = 4096;
const HOST_NAME_BYTES_MAX = 100;

/** Reads the machine's fingerprint for the daemon of a state directory. Never rejects. */
export async function machineFingerprint(installId: string, stateDir: string): Promise<MachineFingerprint> {
  const [machine, boot, directory] = await Promise.all([
    machineId(),
    bootId(),
    identityOfDirectory(stateDir).catch(() => ""),
  ]);
  const hash = (text: string) =>
    text === "" ? "" : createHash("sha256").update(`${installId}\n${text}`).digest("hex").slice(0, 32);
  return {
    machineHash: hash(machine),
    bootHash: hash(boot),
    hostName: Buffer.from(hostname())
      .subarray(0, HOST_NAME_BYTES_MAX)
      .toString("utf8")
      .replaceAll("\ufffd", ""),
    arch: process.arch,
    daemonId: hash(boot && directory && `${boot}\n${directory}`) || randomUUID(),
    startedAt: performance.now(),
  };
}

async function machineId(): Promise<string> {
  switch (process.platform) {
    case "linux":
      return firstLine("/etc/machine-id") || firstLine("/var/lib/dbus/machine-id");
    case "darwin":
      return printed(
        ["/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"],
        /"IOPlatformUUID" = "([^"]+)"/,
      );
    case "win32":
      return printed(
        ["reg", "query", "HKLM\\SOFTWARE\\Microsoft\\Cryptography", "/v", "MachineGuid"],
        /MachineGuid\s+REG_SZ\s+(\S+)/,
      );
    default:
      return "";
  }
}

async function bootId(): Promise<string> {
  if (process.platform === "darwin")
    return printed(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], /(\S+)/);
  if (process.platform !== "linux") return "";
  const boot = firstLine("/proc/sys/kernel/random/boot_id");
  // Containers of a machine share its boot id; each has its own process namespace.
  return boot === "" ? "" : `${boot} ${namespaceOf("pid")}`;
}

function namespaceOf(kind: string): string {
  try {
    return readlinkSync(`/proc/self/ns/${kind}`);
  } catch {
    return "";
  }
}

function firstLine(path: string): string {
  const found = readRegularFileSync(path, { bytesMax: FILE_BYTES_MAX, isLinkFollowed: true });
  return found.kind === "read" ? (found.bytes.toString("utf8").split("\n")[0]?.trim() ?? "") : "";
}

function printed([program, ...args]: [string, ...string[]], pattern: RegExp): Promise<string> {
  return new Promise((resolve) => {
    execFile(program, args, { timeout: ASK_DEADLINE_MS, windowsHide: true }, (error, out) => {
      resolve(error === null ? (pattern.exec(out)?.[1] ?? "") : "");
    });
  });
}
