import { type Keyring, type SecretPlace, sealWanted, type WantedSecret } from "../../../secrets.ts";

/** The secrets of destinations (destinations.ts): sealed before they are stored. */

/**
 * The place of a destination's secret in the keyring. No platform has an agent with an empty name,
 * so the place is unique.
 */
export function placeOf(options: { orgId: string; id: string; field: string }): SecretPlace {
  const { orgId, id, field } = options;
  return { orgId, agentId: "", platformId: `destination ${id}`, field };
}

/** The secrets of a destination as stored. */
export function sealAll(
  options: { keyring: Keyring; orgId: string; id: string; values: { secrets: Record<string, WantedSecret> } },
  stored: Record<string, string>,
): Record<string, string> {
  const { keyring, values } = options;
  const place = (field: string) => placeOf({ ...options, field });
  return sealWanted(values.secrets, { keyring, stored, placeOf: place, path: "spec" });
}
