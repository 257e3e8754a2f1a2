import { refuse } from "../../errors.ts";

/** The keys that a kind of platform needs to start, and the ones that it may have besides. */
export type PlatformKind = {
  config: readonly string[];
  optionalConfig: readonly string[];
  secrets: readonly string[];
  optionalSecrets: readonly string[];
};

/** Keys of every kind; see incoming.ts, and `api_url` in adapters.ts. */
const everywhere = ["allow_from", "allow_groups"];
const ofAdapters = [...everywhere, "api_url", "user_name"];

export const platformKinds: Readonly<Record<string, PlatformKind>> = {
  telegram: {
    config: [],
    optionalConfig: ofAdapters,
    secrets: ["bot_token"],
    optionalSecrets: ["webhook_secret"],
  },
  slack: {
    config: [],
    optionalConfig: ofAdapters,
    secrets: ["bot_token", "signing_secret"],
    optionalSecrets: ["app_token"],
  },
  discord: {
    config: ["application_id", "public_key"],
    optionalConfig: ofAdapters,
    secrets: ["bot_token"],
    optionalSecrets: [],
  },
  whatsapp: {
    config: ["phone_number_id"],
    optionalConfig: ofAdapters,
    secrets: ["access_token", "verify_token", "app_secret"],
    optionalSecrets: [],
  },
  teams: {
    config: ["app_id"],
    optionalConfig: [...ofAdapters, "app_tenant_id"],
    secrets: ["app_password"],
    optionalSecrets: [],
  },
  github: {
    config: [],
    optionalConfig: ofAdapters,
    secrets: ["token", "webhook_secret"],
    optionalSecrets: [],
  },
  gchat: {
    config: [],
    optionalConfig: [...ofAdapters, "project_number"],
    secrets: ["credentials"],
    optionalSecrets: [],
  },
  linear: {
    config: [],
    optionalConfig: ofAdapters,
    secrets: ["api_key", "webhook_secret"],
    optionalSecrets: [],
  },
  // Any client that knows a webhook's URL may post there: the URL is a secret.
  webhook: {
    config: [],
    optionalConfig: everywhere,
    secrets: ["url", "signing_secret"],
    optionalSecrets: [],
  },
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
  const [field] = missing;
  if (field !== undefined) {
    refuse("invalid_argument", `a ${platform.kind} platform needs ${missing.join(", ")}`, { field });
  }
}
