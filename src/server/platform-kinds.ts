import { refuse } from "../errors.ts";

/** What a kind of platform needs to start. Keys beyond these are the gateway's business. */
export type PlatformKind = {
  config: readonly string[];
  secrets: readonly string[];
  optionalSecrets: readonly string[];
};

export const platformKinds: Readonly<Record<string, PlatformKind>> = {
  telegram: { config: [], secrets: ["bot_token"], optionalSecrets: ["webhook_secret"] },
  slack: {
    config: [],
    secrets: ["bot_token", "signing_secret"],
    optionalSecrets: ["app_token", "client_secret"],
  },
  discord: { config: ["application_id"], secrets: ["bot_token"], optionalSecrets: [] },
  whatsapp: {
    config: ["phone_number_id"],
    secrets: ["access_token"],
    optionalSecrets: ["verify_token", "app_secret"],
  },
  teams: { config: ["app_id"], secrets: ["app_password"], optionalSecrets: [] },
  webhook: { config: ["url"], secrets: [], optionalSecrets: ["signing_secret"] },
};

/** What nobody would call a value that everybody may read. */
const secretName = /(^|_)(token|secret|password|passwd|api_key|private_key|credentials?)$/;

/** Whether a key of a platform is a secret: by its kind, or, where that does not say, by its name. */
export function isSecretKey(kind: string, key: string): boolean {
  const known = Object.hasOwn(platformKinds, kind) ? platformKinds[kind] : undefined;
  return known?.secrets.includes(key) || known?.optionalSecrets.includes(key) || secretName.test(key);
}

/**
 * Refuses with `invalid_argument`, naming the field: an unknown kind, a required key that is missing, and a secret among
 * the values that are listed.
 */
export function checkPlatform(platform: {
  kind: string;
  config: Readonly<Record<string, string>>;
  secretNames: readonly string[];
}): void {
  const kind = Object.hasOwn(platformKinds, platform.kind)
    ? platformKinds[platform.kind]!
    : refuse("invalid_argument", `kind: must be one of ${Object.keys(platformKinds).join(", ")}`, {
        field: "kind",
      });
  const secret = Object.keys(platform.config).find((key) => isSecretKey(platform.kind, key));
  if (secret !== undefined) {
    refuse("invalid_argument", `config.${secret}: a secret; give it in "secrets", where it is encrypted`, {
      field: `config.${secret}`,
    });
  }
  const missing = [
    ...kind.config.filter((key) => !Object.hasOwn(platform.config, key)).map((key) => `config.${key}`),
    ...kind.secrets.filter((key) => !platform.secretNames.includes(key)).map((key) => `secrets.${key}`),
  ];
  if (missing.length > 0) {
    refuse("invalid_argument", `a ${platform.kind} platform needs ${missing.join(", ")}`, {
      field: missing[0]!,
    });
  }
}
