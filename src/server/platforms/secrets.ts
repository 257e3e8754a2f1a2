/** Secrets of platforms, opened for a start, and kept out of every text. */
import { Refusal, refuse } from "../../errors.ts";
import { isReference, type Keyring, type References, requireReference } from "../../secrets.ts";
import type * as platforms from "../../store/agents/platforms.ts";
import { excerpt } from "../../values/excerpt.ts";

export type SecretSources = { keyring: Keyring; references: References };

/** The secrets of a stored platform, decrypted and looked up. Refuses with the field at fault. */
export function openSecrets(
  { keyring, references }: SecretSources,
  platform: Pick<platforms.Platform, "org_id" | "stable_id" | "agent_id" | "secrets">,
): Record<string, string> {
  const { org_id: orgId, stable_id: platformId, agent_id: agentId } = platform;
  return Object.fromEntries(
    Object.entries(platform.secrets).map(([field, stored]) => [
      field,
      isReference(stored)
        ? lookUp(references, orgId, stored, field)
        : keyring.open(stored, { orgId, agentId, platformId, field }),
    ]),
  );
}

function lookUp(references: References, orgId: string, reference: string, field: string): string {
  const name = requireReference(reference, `secrets.${field}`);
  const found = references.find(orgId, name);
  if (found === undefined) {
    refuse(
      "failed_precondition",
      `secrets.${field}: the server has no ${reference} for this org; set PINION_SECRET_${name} and restart it`,
    );
  }
  // References do not lead to references, so none can lead back to itself.
  if (isReference(found)) {
    refuse(
      "failed_precondition",
      `secrets.${field}: ${reference} is a reference again; set PINION_SECRET_${name} to the secret`,
    );
  }
  return found;
}

/**
 * Refuses all references that a start would not find, together. A dry run calls it, so that a plan
 * names them.
 */
export function requireReferences(
  references: References,
  orgId: string,
  secrets: platforms.PlatformValues["secrets"],
): void {
  const refusals = Object.entries(secrets).flatMap(([field, wanted]) => {
    if (wanted === "keep" || !isReference(wanted.value)) return [];
    try {
      lookUp(references, orgId, wanted.value, field);
      return [];
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return [{ field: `secrets.${field}`, message: error.message }];
    }
  });
  const [first] = refusals;
  if (first === undefined) return;
  refuse("failed_precondition", refusals.map(({ message }) => message).join("; "), { field: first.field });
}

/** Longer reasons are cut. */
const reasonLengthMax = 500;

/** The text without any of the secrets, ready to store. */
export function mask(text: string, secrets: Readonly<Record<string, string>>): string {
  let masked = text;
  // The longest first: a secret may begin with another secret.
  for (const secret of Object.values(secrets)
    .filter(Boolean)
    .sort((a, b) => b.length - a.length)) {
    masked = masked.replaceAll(secret, "***");
  }
  return excerpt(masked, reasonLengthMax);
}
