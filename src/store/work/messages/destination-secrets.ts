import { randomBytes } from "node:crypto";
import { refuse } from "../../../errors.ts";
import { isReference, type Keyring, type SecretPlace } from "../../../secrets.ts";

/** The secrets of destinations (destinations.ts): sealed before they are stored. */

/** The new value of a secret; "keep" leaves the stored value. */
export type WantedSecret = { value: string } | "keep";

/** A secret in the format of Standard Webhooks: 32 random bytes. */
export function newSigningSecret(): string {
  return `whsec_${randomBytes(32).toString("base64")}`;
}

/**
 * The place of a destination's secret in the keyring. No platform has an agent with an empty name,
 * so the place is unique.
 */
export function placeOf(options: { orgId: string; id: string; field: string }): SecretPlace {
  const { orgId, id, field } = options;
  return { orgId, agentId: "", platformId: `destination ${id}`, field };
}

/**
 * The secrets of a destination as stored. An unchanged secret keeps its ciphertext, so that equal calls change
 * nothing.
 */
export function sealAll(
  options: { keyring: Keyring; orgId: string; id: string; values: { secrets: Record<string, WantedSecret> } },
  stored: Record<string, string>,
): Record<string, string> {
  const { keyring } = options;
  const seal = (field: string, wanted: WantedSecret): string => {
    const before = Object.hasOwn(stored, field) ? stored[field] : undefined;
    if (wanted === "keep") {
      return (
        before ??
        refuse("invalid_argument", `spec.${field}: there is none to keep`, { field: `spec.${field}` })
      );
    }
    if (isReference(wanted.value)) return wanted.value;
    const place = placeOf({ ...options, field });
    if (before !== undefined && !isReference(before)) {
      try {
        if (keyring.open(before, place) === wanted.value) return before;
      } catch {
        // The secret's key is lost: the given secret replaces it.
      }
    }
    return keyring.seal(wanted.value, place);
  };
  return Object.fromEntries(
    Object.entries(options.values.secrets).map(([field, wanted]) => [field, seal(field, wanted)]),
  );
}
