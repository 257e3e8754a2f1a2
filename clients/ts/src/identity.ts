import { randomUUID } from "node:crypto";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { DeviceError, hasCode } from "./device/errors.ts";
import { Os } from "./gen/pinion/v1/device_pb.js";
import { writeDurably } from "./outbox/durable-file.ts";
import { ensurePrivateDirectory } from "./private-directory.ts";
import { readRegularFile } from "./regular-file.ts";

/** Identity of this daemon; stored in `stateDir/identity.json`, readable by its owner only. */
export interface Identity {
  installId: string;
  deviceId: string;
  orgId: string;
  /** Empty: the token is stored elsewhere. */
  token: string;
  url: string;
}

/** Bound on the file in bytes, far above a few short texts. */
const IDENTITY_BYTES_MAX = 16 * 1024;

const identityPath = (stateDir: string) => join(stateDir, "identity.json");

/**
 * The stored identity, or undefined before enrolment. Throws DeviceError `unusable` for an invalid
 * file.
 */
export async function findIdentity(stateDir: string): Promise<Identity | undefined> {
  const path = identityPath(stateDir);
  const found = await readRegularFile(path, { bytesMax: IDENTITY_BYTES_MAX });
  if (found.kind === "absent") return undefined;
  if (found.kind !== "read") throw new DeviceError("unusable", `${path} cannot be read: ${found.problem}`);
  // Drops a byte order mark, as editors of Windows write it.
  const text = new TextDecoder().decode(found.bytes);
  const problem = `${path} is damaged; remove it and enrol the device again`;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DeviceError("unusable", problem, { cause: error });
  }
  if (typeof value !== "object" || value === null) throw new DeviceError("unusable", problem);
  const fields: Partial<Record<string, unknown>> = { ...value };
  const { install_id: installId, device_id: deviceId, org_id: orgId, token, url } = fields;
  if (
    typeof installId !== "string" ||
    typeof deviceId !== "string" ||
    typeof orgId !== "string" ||
    typeof token !== "string" ||
    typeof url !== "string"
  ) {
    throw new DeviceError("unusable", problem);
  }
  return { installId, deviceId, orgId, token, url };
}

/** Stores the identity durably, mode 0600. */
export async function saveIdentity(stateDir: string, identity: Identity): Promise<void> {
  await ensurePrivateDirectory(stateDir);
  const { installId, deviceId, orgId, token, url } = identity;
  const text = JSON.stringify(
    { install_id: installId, device_id: deviceId, org_id: orgId, token, url },
    null,
    2,
  );
  await writeDurably(identityPath(stateDir), `${text}\n`, { mode: 0o600 });
}

/**
 * Returns the installation's id: from the identity, from `stateDir/install_id`, or a new random id
 * stored there. The id is stored before its first use, so an interrupted enrolment finds its device
 * again.
 */
export async function ensureInstallId(stateDir: string): Promise<string> {
  const identity = await findIdentity(stateDir);
  if (identity !== undefined) return identity.installId;
  const path = join(stateDir, "install_id");
  const found = await readRegularFile(path, { bytesMax: IDENTITY_BYTES_MAX });
  const stored = found.kind === "read" ? found.bytes.toString("utf8").trim() : "";
  if (stored.length >= 8) return stored;
  const installId = randomUUID();
  await ensurePrivateDirectory(stateDir);
  await writeDurably(path, `${installId}\n`, { mode: 0o600 });
  return installId;
}

/**
 * Removes the identity, so an enrolment creates a new device: for a copy of another machine's
 * state. The outbox belongs to the other machine and is set aside.
 */
export async function forgetIdentity(stateDir: string): Promise<void> {
  await rm(identityPath(stateDir), { force: true });
  await rm(join(stateDir, "install_id"), { force: true });
  await rename(join(stateDir, "outbox"), join(stateDir, `outbox.${Date.now()}`)).catch((error: unknown) => {
    if (!hasCode(error, "ENOENT")) throw error;
  });
}

/** The operating system of this process. */
export function currentOs(): Os {
  switch (process.platform) {
    case "darwin":
      return Os.MACOS;
    case "win32":
      return Os.WINDOWS;
    case "android":
      return Os.ANDROID;
    default:
      return Os.LINUX;
  }
}

/** Stores another token of the same identity, unless the stored one changed meanwhile. */
export async function replaceToken(
  stateDir: string,
  token: { before: string; after: string },
): Promise<void> {
  const identity = await findIdentity(stateDir);
  if (identity?.token === token.before) await saveIdentity(stateDir, { ...identity, token: token.after });
}
