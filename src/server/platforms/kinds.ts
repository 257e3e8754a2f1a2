import { refuse } from "../../errors.ts";

/** The keys that a kind of platform needs to start. The chat gateway interprets all other keys. */
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
  // Any client that knows a webhook's URL may post there: the URL is a secret.
  webhook: { config: [], secrets: ["url"], optionalSecrets: ["signing_secret"] },
};

/** Every secret key of every kind. */
export const secretKeys: readonly { kind: string; key: string }[] = Object.entries(platformKinds).flatMap(
  ([kind, { secrets, optionalSecrets }]) => [...secrets, ...optionalSecrets].map((key) => ({ kind, key })),
);

/** Key names that mean a secret. */
const secretName = /(^|_)(token|secret|password|passwd|api_key|private_key|credentials?)$/;

/** The definition of a kind; undefined for an unknown kind. */
function kindOf(kind: string): PlatformKind | undefined {
  return Object.hasOwn(platformKinds, kind) ? platformKinds[kind] : undefined;
}

/**
 * Whether a key of a platform is a secret: by its kind, or, if the kind does not list the key, by
 * its name.
 */
export function isSecretKey(kind: string, key: string): boolean {
  const known = kindOf(kind);
  return known?.secrets.includes(key) || known?.optionalSecrets.includes(key) || secretName.test(key);
}

/** Whether a kind needs the key as a public setting. */
export function isSettingKey(kind: string, key: string): boolean {
  return kindOf(kind)?.config.includes(key) ?? false;
}

/** Whether a text contains a URL with a password: "https://user:password@host". */
export function hasUrlPassword(text: string): boolean {
  return /:\/\/[^\s/?#@:]*:[^\s/?#@]+@/.test(text);
}

/**
 * Refuses with `invalid_argument` and the field: an unknown kind, a missing required key, and a
 * secret among the readable values, found by its key or as the password of a URL.
 */
export function checkPlatform(platform: {
  kind: string;
  config: Readonly<Record<string, string>>;
  secretNames: readonly string[];
}): void {
  const kind =
    kindOf(platform.kind) ??
    refuse("invalid_argument", `kind: must be one of ${Object.keys(platformKinds).join(", ")}`, {
      field: "kind",
    });
  const secret = Object.keys(platform.config).find((key) => isSecretKey(platform.kind, key));
  if (secret !== undefined) {
    refuse("invalid_argument", `config.${secret}: a secret; give it in "secrets", where it is encrypted`, {
      field: `config.${secret}`,
    });
  }
  const open = Object.entries(platform.config).find(([, value]) => hasUrlPassword(value))?.[0];
  if (open !== undefined) {
    refuse(
      "invalid_argument",
      `config.${open}: holds a URL with a password; give it in "secrets", where it is encrypted`,
      { field: `config.${open}` },
    );
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
