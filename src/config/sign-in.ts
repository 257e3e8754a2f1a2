import { z } from "zod";
import { tokenKind } from "../values/ids.ts";
import { ConfigError } from "./config-error.ts";
import { length, lengthMs, type SettingsOf } from "./fields.ts";
import type { portSettings } from "./port.ts";

/** People who sign in with a provider of OpenID Connect. */
export type OidcConfig = {
  issuer: string;
  clientId: string;
  clientSecret: string;
  name: string;
  scopes: string;
  orgId: string;
  roleClaim: string;
  /** By a value of the claim; "*": whatever it says. Empty: roles are given here, and not there. */
  roles: ReadonlyMap<string, "owner" | "admin" | "member">;
  publicUrl: string;
};

/** Sign-in of people: browsers, the provider of OpenID Connect, and the owner of a first start. */
export const signInSettings = {
  PINION_SIGN_IN_LENGTH: length(
    "336h",
    "How long a browser stays signed in to the web page, for example 12h",
  ),
  PINION_OIDC_ISSUER: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe(
      "An OpenID Connect provider with which people sign in to the web page, for example https://accounts.google.com; needs PINION_PUBLIC_URL",
    ),
  PINION_OIDC_CLIENT_ID: z.string().optional().describe("The client id of this server at the provider"),
  PINION_OIDC_CLIENT_SECRET: z.string().optional().describe("The secret of the client id"),
  PINION_OIDC_NAME: z
    .string()
    .max(60)
    .optional()
    .describe("The provider's name on the button; default: its host"),
  PINION_OIDC_SCOPES: z
    .string()
    .default("openid email profile")
    .describe("The scopes to request from the provider, separated by blanks"),
  PINION_OIDC_ORG: z.string().default("local").describe("The org into which the provider's people sign in"),
  PINION_OIDC_ROLE_CLAIM: z
    .string()
    .default("groups")
    .describe("The provider's claim with a person's groups or roles: a text or a list of texts"),
  PINION_OIDC_ROLES: z
    .string()
    .regex(/^([^=,]+=(owner|admin|member)(,|$))*$/, "must be like ops=admin,staff=member")
    .default("")
    .describe(
      "The role for each value of the claim, for example ops=admin,staff=member; *=member admits every person of the provider; default: only members of the org sign in, with their present role",
    ),
  PINION_BOOTSTRAP_TOKEN: z
    .string()
    .refine(
      (text) => tokenKind(text) === "pat",
      "is no token of a person; `pinion tokens generate` makes one",
    )
    .optional()
    .describe(
      "The owner's token of a first start, from a secret store; default: a new one, which is kept in the data directory. Later starts ignore the variable",
    ),
};

export type SignInConfig = {
  /** How long a browser stays signed in. */
  signInMs: number;
  oidc: OidcConfig | undefined;
  /** The owner's token of a first start; undefined: a new one. */
  bootstrapToken: string | undefined;
};

type Settings = SettingsOf<typeof signInSettings> &
  Pick<SettingsOf<typeof portSettings>, "PINION_PUBLIC_URL">;

export function signInConfig(s: Settings): SignInConfig {
  return {
    signInMs: lengthMs(s.PINION_SIGN_IN_LENGTH),
    oidc: s.PINION_OIDC_ISSUER ? requireOidc(s, s.PINION_OIDC_ISSUER) : undefined,
    bootstrapToken: s.PINION_BOOTSTRAP_TOKEN,
  };
}

function requireOidc(s: Settings, issuer: string): OidcConfig {
  const {
    PINION_PUBLIC_URL: publicUrl,
    PINION_OIDC_CLIENT_ID: clientId,
    PINION_OIDC_CLIENT_SECRET: clientSecret,
  } = s;
  if (!publicUrl || !clientId || !clientSecret) {
    const missing = (
      ["PINION_PUBLIC_URL", "PINION_OIDC_CLIENT_ID", "PINION_OIDC_CLIENT_SECRET"] as const
    ).filter((name) => !s[name]);
    throw new ConfigError(`PINION_OIDC_ISSUER needs ${missing.join(", ")} as well`);
  }
  const roles = s.PINION_OIDC_ROLES.split(",").filter(Boolean);
  return {
    issuer,
    clientId,
    clientSecret,
    name: s.PINION_OIDC_NAME ?? new URL(issuer).host,
    scopes: s.PINION_OIDC_SCOPES,
    orgId: s.PINION_OIDC_ORG,
    roleClaim: s.PINION_OIDC_ROLE_CLAIM,
    roles: new Map(
      roles.map(
        (pair) => pair.split("=").map((part) => part.trim()) as [string, "owner" | "admin" | "member"],
      ),
    ),
    publicUrl,
  };
}
