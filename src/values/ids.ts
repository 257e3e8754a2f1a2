import { createHash, hash, randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";

/**
 * A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits. Sorts by time of
 * creation.
 */
export function newId(now: number = Date.now()): string {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(now, 0, 6);
  return formatted(bytes);
}

/**
 * The id of a slot's run: a UUIDv7 in form, by the slot's time, whose other bits are a hash of the
 * names. A slot that is recorded again after a failover has the same run, which meets the result
 * that its device still has.
 */
export function slotRunId(slot: { orgId: string; watcherId: string; scheduledFor: Date }): string {
  const { orgId, watcherId, scheduledFor } = slot;
  const name = JSON.stringify([orgId, watcherId, scheduledFor.getTime()]);
  const bytes = hash("sha256", name, "buffer").subarray(0, 16);
  bytes.writeUIntBE(Math.max(0, scheduledFor.getTime()), 0, 6);
  return formatted(bytes);
}

/**
 * The id of a spread run's copy for a device: the time of the run, and a hash of the run's name
 * ({@link nameOfRun}) and the device. As with {@link slotRunId}, a run that is spread again has the
 * same copies; the copies of two runs of one name have one name, too.
 */
export function spreadRunId(copy: { runId: string; deviceId: string }): string {
  const name = JSON.stringify([nameOfRun(copy.runId), copy.deviceId]);
  const bytes = hash("sha256", name, "buffer").subarray(0, 16);
  Buffer.from(copy.runId.replaceAll("-", ""), "hex").copy(bytes, 0, 0, 6);
  return formatted(bytes);
}

/**
 * The id of the run that the end of a run starts of a follower: a millisecond after the ended run's
 * own time, and a hash of both. As with {@link slotRunId}, an end that is stored again starts the
 * same run.
 */
export function followerRunId(start: { afterRunId: string; watcherId: string }): string {
  const name = JSON.stringify(["after", start.afterRunId, start.watcherId]);
  const bytes = hash("sha256", name, "buffer").subarray(0, 16);
  bytes.writeUIntBE(Math.min(timeOfRun(start.afterRunId) + 1, 2 ** 48 - 1), 0, 6);
  return formatted(bytes);
}

/**
 * The id of the run of a hook's delivery that has a key: the time of its arrival, and a hash of the
 * key. Two ids of the same key differ in the time alone ({@link nameOfRun}).
 */
export function deliveryRunId(delivery: { hookId: string; key: string }, now: number = Date.now()): string {
  return namedRunId(["hook", delivery.hookId, delivery.key], now);
}

/**
 * The id of the run that a request with an id of its own asks for: the time, and a hash of the
 * request, as {@link deliveryRunId}.
 */
export function requestedRunId(
  request: { orgId: string; actor: string; rpc: string; requestId: string },
  now: number = Date.now(),
): string {
  return namedRunId(["request", request.orgId, request.actor, request.rpc, request.requestId], now);
}

function namedRunId(names: readonly string[], now: number): string {
  const bytes = hash("sha256", JSON.stringify(names), "buffer").subarray(0, 16);
  bytes.writeUIntBE(now, 0, 6);
  return formatted(bytes);
}

/** The time in a run's id, in milliseconds since the epoch. */
export function timeOfRun(runId: string): number {
  return Number.parseInt(runId.replaceAll("-", "").slice(0, 12), 16);
}

/** The part of an id without its time, version and variant: 62 bits, random or a hash. */
export function nameOfRun(runId: string): string {
  return runId.slice(20).toLowerCase();
}

/**
 * Whether a run's id begins with the slot's time, as {@link slotRunId} makes it; newId begins with
 * its own time.
 */
export function isOfSlot(runId: string, scheduledFor: Date): boolean {
  const time = Math.max(0, scheduledFor.getTime()).toString(16).padStart(12, "0");
  return runId.startsWith(time.slice(0, 8)) && runId.startsWith(time.slice(8), 9);
}

/** As RFC 9562 writes a version 7. */
function formatted(bytes: Buffer): string {
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x70, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = bytes.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Whether the text is a UUID, and so may be compared with an id column. */
export function isUuid(text: string): boolean {
  return uuidPattern.test(text);
}

export type TokenKind = "pat" | "dev" | "svc";

/** 30 characters of base 62 carry 178 random bits. */
const secretLength = 30;
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const tokenPattern = /^pin_(pat|dev|svc)_([0-9A-Za-z]{30})_([0-9a-f]{8})$/;

/** The name of a cell (docs/scaling.md): too short to be taken for the random part of a token. */
export const cellPattern = /^[a-z][a-z0-9]{0,15}$/;
/**
 * The places of a cell's name: after the kind of a token or an agent's token, before the random
 * part of a sign-in code, before the id of a hook's address, and before a join code.
 */
const namedPatterns = [
  /^(pin_(?:pat|dev|svc)_)(?:([a-z][a-z0-9]{0,15})_)?([0-9A-Za-z]{30}_[0-9a-f]{8})$/,
  // The base64url of an agent's token holds no "_" (agent-token.ts).
  /^(pin_run_)(?:([a-z][a-z0-9]{0,15})_)?([0-9A-Za-z]+)$/,
  /^()(?:([a-z][a-z0-9]{0,15})_)?([0-9A-Za-z]{30}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$/,
];
const namedJoinCode = /^(?:([A-Z][A-Z0-9]{0,15})-)?([A-Z0-9]{4}(?:-[A-Z0-9]{4}){3})$/;

function randomText(length: number): string {
  let text = "";
  while (text.length < length) {
    for (const byte of randomBytes(length)) {
      // 248 = 4 × 62: what lies above would favour the first letters.
      if (byte < 248 && text.length < length) text += alphabet[byte % 62];
    }
  }
  return text;
}

function checksum(body: string): string {
  return crc32(body).toString(16).padStart(8, "0");
}

/** A code valid once, of as many random bits as a token. */
export function newCode(): string {
  return randomText(secretLength);
}

/** A new token, `pin_<kind>_<random>_<crc32>`. Only its hash is ever stored. */
export function newToken(kind: TokenKind): string {
  const body = `pin_${kind}_${randomText(secretLength)}`;
  return `${body}_${checksum(body)}`;
}

/**
 * The text with a cell's name ("" for none) in place of its own, for a front door that routes by
 * the name. The name is no part of the secret: the checksum and the stored hash leave the name out,
 * so a token may be renamed by its holder after its org has moved.
 */
export function withCell(text: string, cell: string): string {
  const [, , code] = namedJoinCode.exec(text) ?? [];
  if (code) return cell ? `${cell.toUpperCase()}-${code}` : code;
  for (const pattern of namedPatterns) {
    const match = pattern.exec(text);
    if (match) return `${match[1]}${cell && `${cell}_`}${match[3]}`;
  }
  return text;
}

/**
 * The kind of a well-formed token with a right checksum; undefined for anything else, at no cost to
 * the database.
 */
export function tokenKind(token: string): TokenKind | undefined {
  const match = tokenPattern.exec(withCell(token, ""));
  if (!match) return undefined;
  return checksum(`pin_${match[1]}_${match[2]}`) === match[3] ? (match[1] as TokenKind) : undefined;
}

/** What is stored of a token or a code: a digest of the text without the name of a cell. */
export function secretHash(secret: string): Buffer {
  return createHash("sha256").update(withCell(secret, "")).digest();
}

/** Letters that are not mistaken for each other when read aloud or typed. */
const joinCodeAlphabet = "ABCDEFGHJKMNPQRSTUVWXYZ23456789";

/** A one-time join code, `XXXX-XXXX-XXXX-XXXX`: 79 random bits, easy to type. */
export function newJoinCode(): string {
  const letters: string[] = [];
  while (letters.length < 16) {
    for (const byte of randomBytes(32)) {
      if (byte < 248 && letters.length < 16) letters.push(joinCodeAlphabet.charAt(byte % 31));
    }
  }
  return letters.join("").replace(/(.{4})(?=.)/g, "$1-");
}
