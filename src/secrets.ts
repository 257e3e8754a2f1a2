/**
 * Sealed secrets, and references to secrets of the server's environment.
 *
 * A sealed secret is `enc:v1:<key id>:<nonce>:<ciphertext and tag>`, AES-256-GCM with a random
 * nonce of 96 bits; the last two parts are base64url. The place of the secret (org, agent,
 * platform, field) is authenticated with the ciphertext: a ciphertext that was moved to another
 * place, or to another tenant, does not open.
 *
 * - S1 A secret opens only at the place for which the secret was sealed.
 * - S2 New secrets are sealed with the first key; a former first key still opens its secrets.
 * - S3 No message or error of this file contains a secret, a ciphertext or a key.
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { refuse } from "./errors.ts";

const algorithm = "aes-256-gcm";
const keyBytes = 32;
/**
 * The nonce length that NIST SP 800-38D recommends for GCM; with up to 2^32 secrets per key the
 * probability of a repeated nonce stays below 2^-32.
 */
const nonceBytes = 12;
const tagBytes = 16;
const sealedPattern = /^enc:v1:([A-Za-z0-9_-]{1,32}):([A-Za-z0-9_-]{16}):([A-Za-z0-9_-]+)$/;
const keyIdPattern = /^[A-Za-z0-9_-]{1,32}$/;
/** Maximum keys: the current key, and older keys until their secrets are sealed anew. */
const keysMax = 16;

/** The place of a secret: the field that holds the secret. */
export type SecretPlace = { orgId: string; agentId: string; platformId: string; field: string };

export type Keyring = {
  /** The key for new secrets; undefined without any key. */
  currentKeyId: string | undefined;
  /** Refuses with `failed_precondition` without any key. */
  seal(secret: string, place: SecretPlace): string;
  /**
   * Refuses with `failed_precondition` a secret of a missing key or of another place, and a changed
   * ciphertext.
   */
  open(sealed: string, place: SecretPlace): string;
  /** Whether the secret was sealed with another key than the current key. */
  isOutdated(sealed: string): boolean;
  /**
   * The id of the secret's key, and whether the keyring has the key; undefined for malformed texts.
   */
  keyOf(sealed: string): { id: string; isHere: boolean } | undefined;
};

/** Thrown for unusable keys; the message contains no key. */
export class KeyError extends Error {
  override name = "KeyError";
}

/**
 * The keyring of the configured keys: "id:base64,id2:base64", the current key first; empty: no key.
 * Throws a {@link KeyError}.
 */
export function createKeyring(text: string): Keyring {
  const keys = parseKeys(text);
  const current = keys.entries().next().value;
  return {
    currentKeyId: current?.[0],
    seal(secret, place) {
      if (!current) {
        refuse(
          "failed_precondition",
          "the server has no key for secrets; set PINION_SECRET_KEYS and restart it",
        );
      }
      const [id, key] = current;
      const nonce = randomBytes(nonceBytes);
      const cipher = createCipheriv(algorithm, key, nonce, { authTagLength: tagBytes });
      cipher.setAAD(placeBytes(place));
      const sealed = Buffer.concat([cipher.update(secret, "utf8"), cipher.final(), cipher.getAuthTag()]);
      return `enc:v1:${id}:${nonce.toString("base64url")}:${sealed.toString("base64url")}`;
    },
    open(sealed, place) {
      const [, id = "", nonce = "", body = ""] =
        sealedPattern.exec(sealed) ?? cannotOpen(place, "it is malformed");
      const key =
        keys.get(id) ?? cannotOpen(place, `the server lacks its key "${id}"; see PINION_SECRET_KEYS`);
      const bytes = Buffer.from(body, "base64url");
      if (bytes.length < tagBytes) cannotOpen(place, "it is malformed");
      const decipher = createDecipheriv(algorithm, key, Buffer.from(nonce, "base64url"), {
        authTagLength: tagBytes,
      });
      decipher.setAAD(placeBytes(place));
      decipher.setAuthTag(bytes.subarray(-tagBytes));
      try {
        return Buffer.concat([decipher.update(bytes.subarray(0, -tagBytes)), decipher.final()]).toString(
          "utf8",
        );
      } catch {
        return cannotOpen(
          place,
          "it was changed, moved from another place, or sealed with another key of that id",
        );
      }
    },
    isOutdated(sealed) {
      return sealedPattern.exec(sealed)?.[1] !== current?.[0];
    },
    keyOf(sealed) {
      const id = sealedPattern.exec(sealed)?.[1];
      return id === undefined ? undefined : { id, isHere: keys.has(id) };
    },
  };
}

function cannotOpen(place: SecretPlace, why: string): never {
  refuse("failed_precondition", `the secret "${place.field}" cannot be opened: ${why}`);
}

/** The bytes of a place: JSON, so that two places never have the same bytes. */
function placeBytes({ orgId, agentId, platformId, field }: SecretPlace): Buffer {
  return Buffer.from(JSON.stringify([orgId, agentId, platformId, field]));
}

function parseKeys(text: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const [index, part] of text
    .split(/[,\n]/)
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "")
    .entries()) {
    const nth = `key ${index + 1} of PINION_SECRET_KEYS`;
    const colon = part.indexOf(":");
    const id = part.slice(0, Math.max(colon, 0));
    if (!keyIdPattern.test(id)) {
      throw new KeyError(`${nth}: write id:base64, the id 1 to 32 of letters, digits, "-" and "_"`);
    }
    const encoded = part.slice(colon + 1);
    const key = Buffer.from(encoded, "base64");
    if (key.length !== keyBytes || !/^[A-Za-z0-9+/_-]+={0,2}$/.test(encoded)) {
      throw new KeyError(
        `${nth} ("${id}"): must be 32 bytes in base64, for example from: openssl rand -base64 32`,
      );
    }
    if (keys.has(id)) throw new KeyError(`${nth}: the id "${id}" is there twice`);
    keys.set(id, key);
  }
  if (keys.size > keysMax) throw new KeyError(`PINION_SECRET_KEYS holds more than ${keysMax} keys`);
  return keys;
}

/** A new key in the form of PINION_SECRET_KEYS; the id has the day and six random letters. */
export function newKey(now: Date = new Date()): string {
  const id = `k${now.toISOString().slice(0, 10).replaceAll("-", "")}-${randomBytes(3).toString("hex")}`;
  return `${id}:${randomBytes(keyBytes).toString("base64")}`;
}

const referencePattern = /^secret:\/\/([A-Z][A-Z0-9_]{0,63})$/;

/**
 * Whether a text is meant as a reference; {@link requireReference} refuses malformed references.
 */
export function isReference(text: string): boolean {
  return text.startsWith("secret://");
}

/** A secret in the format of Standard Webhooks: 32 random bytes. */
export function newSigningSecret(): string {
  return `whsec_${randomBytes(32).toString("base64")}`;
}

/** The new value of a secret; "keep" leaves the stored value. */
export type WantedSecret = { value: string } | "keep";

/**
 * The wanted secrets as they are stored, by field: sealed for their places, or references. An
 * unchanged secret keeps its ciphertext, so that equal calls change nothing. Refuses with
 * `invalid_argument`, naming the field below `path`, a secret to keep that is not there.
 */
export function sealWanted(
  wanted: Record<string, WantedSecret>,
  options: {
    keyring: Keyring;
    stored: Record<string, string>;
    placeOf: (field: string) => SecretPlace;
    path: string;
  },
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(wanted).map(([field, secret]) => [field, sealOne(field, secret, options)]),
  );
}

function sealOne(
  field: string,
  wanted: WantedSecret,
  { keyring, stored, placeOf, path }: Parameters<typeof sealWanted>[1],
): string {
  const before = Object.hasOwn(stored, field) ? stored[field] : undefined;
  if (wanted === "keep") {
    const name = `${path}.${field}`;
    return before ?? refuse("invalid_argument", `${name}: there is none to keep`, { field: name });
  }
  if (isReference(wanted.value)) return wanted.value;
  const place = placeOf(field);
  if (before !== undefined && !isReference(before)) {
    try {
      if (keyring.open(before, place) === wanted.value) return before;
    } catch {
      // The secret's key is lost: the given secret replaces it.
    }
  }
  return keyring.seal(wanted.value, place);
}

/** The name in a reference. Refuses with `invalid_argument` a malformed reference. */
export function requireReference(text: string, field: string): string {
  return (
    referencePattern.exec(text)?.[1] ??
    refuse("invalid_argument", `${field}: write secret://NAME, the name of A-Z, 0-9 and "_"`, { field })
  );
}

/** The secrets that references name on this server; only the allowed orgs have references. */
export type References = {
  /**
   * Undefined for an unknown name, and for an org that may not use references, without a
   * difference.
   */
  find(orgId: string, name: string): string | undefined;
};

/**
 * @param orgIds Orgs that may use references; "*" means all.
 * @param values Secrets by name, as in secret://NAME.
 */
export function createReferences(
  orgIds: readonly string[],
  values: Readonly<Record<string, string>>,
): References {
  const allowed = new Set(orgIds);
  return {
    find(orgId, name) {
      if (!allowed.has("*") && !allowed.has(orgId)) return undefined;
      return Object.hasOwn(values, name) ? values[name] : undefined;
    },
  };
}
