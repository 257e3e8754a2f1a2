import { z } from "zod";
import { createReach, parseNetworks, type Reach } from "../network/addresses.ts";
import { credentialsProblem } from "../network/credentials.ts";
import { createKeyring, createReferences, KeyError, type Keyring, type References } from "../secrets.ts";
import { ConfigError } from "./config-error.ts";
import { count, type SettingsOf } from "./fields.ts";

/** Destinations and chat platforms, and the secrets at rest. */
export const outgoingSettings = {
  PINION_SECRET_KEYS: z
    .string()
    .default("")
    .describe(
      "Keys for secrets at rest, id:base64 of 32 bytes, separated by commas; the first seals. Default: with the embedded PostgreSQL a key file in the data directory, otherwise none, and platforms with secrets are refused",
    ),
  PINION_REFERENCE_ORGS: z
    .string()
    .default("local")
    .describe(
      "Orgs whose platforms may refer to PINION_SECRET_<NAME> as secret://NAME, by commas; * for all",
    ),
  PINION_DESTINATION_NETWORKS: z
    .string()
    .default("")
    .describe(
      "Networks beside the public internet to which destinations and platforms may connect, for example 10.1.0.0/16,127.0.0.1; * for all. Admins of an org make destinations and platforms, and this server opens the connections",
    ),
  PINION_PLATFORM_LEASE_MS: count(
    15_000,
    1_000,
    600_000,
    "Time after which another replica takes over the chat platforms of a replica that is gone (milliseconds)",
  ),
  PINION_PLATFORM_PACKAGES: z
    .string()
    .optional()
    .describe(
      "Folder in whose node_modules further kinds of chat platforms are installed; default: the folders above the command",
    ),
  PINION_SMTP_URL: z
    .string()
    .regex(/^smtps?:\/\//, "must begin with smtp:// or smtps://")
    .optional()
    .describe(
      "SMTP server for destinations of kind email, smtp://user:password@host:587 or smtps://…; default: none, and each email destination names its own",
    ),
  PINION_MAIL_FROM: z
    .email()
    .optional()
    .describe("Sender of mail that goes through PINION_SMTP_URL, for example pinion@example.org"),
};

export type OutgoingConfig = {
  secrets: {
    keyring: Keyring;
    references: References;
  };
  destinations: {
    reach: Reach;
    /** The server's own, which is the operator's to choose; undefined: none. */
    smtp: { url: string; from: string } | undefined;
    /** How long a try is believed to live; undefined: the default. */
    leaseMs?: number;
  };
  platforms: { leaseMs: number; packages: string | undefined };
};

type Settings = SettingsOf<typeof outgoingSettings>;

export function outgoingConfig(
  s: Settings,
  given: Readonly<Record<string, string | undefined>>,
): OutgoingConfig {
  return {
    secrets: {
      keyring: requireKeyring(s.PINION_SECRET_KEYS),
      references: createReferences(
        s.PINION_REFERENCE_ORGS.split(",").map((orgId) => orgId.trim()),
        referencedSecrets(given),
      ),
    },
    destinations: { reach: requireReach(s.PINION_DESTINATION_NETWORKS), smtp: smtpOf(s) },
    platforms: { leaseMs: s.PINION_PLATFORM_LEASE_MS, packages: s.PINION_PLATFORM_PACKAGES },
  };
}

/** The keys of PINION_SECRET_KEYS. Throws a ConfigError that holds none of them. */
export function requireKeyring(text: string): Keyring {
  try {
    return createKeyring(text);
  } catch (error) {
    if (error instanceof KeyError) throw new ConfigError(error.message);
    throw error;
  }
}

function requireReach(networks: string): Reach {
  try {
    return createReach(parseNetworks(networks));
  } catch (error) {
    throw new ConfigError(`PINION_DESTINATION_NETWORKS: ${(error as Error).message}`);
  }
}

function smtpOf(s: Settings): OutgoingConfig["destinations"]["smtp"] {
  if (s.PINION_SMTP_URL === undefined) return undefined;
  const url = URL.parse(s.PINION_SMTP_URL);
  if (!url) throw new ConfigError("PINION_SMTP_URL: is no URL");
  const problem = credentialsProblem(url);
  if (problem) throw new ConfigError(`PINION_SMTP_URL: ${problem}`);
  if (s.PINION_MAIL_FROM === undefined) {
    throw new ConfigError("PINION_SMTP_URL and PINION_MAIL_FROM belong together: set both or neither");
  }
  return { url: s.PINION_SMTP_URL, from: s.PINION_MAIL_FROM };
}

const referencePrefix = "PINION_SECRET_";

/** The keys themselves, which begin like a reference and are none. */
const notReferences = new Set(["PINION_SECRET_KEYS"]);

/** What secret://NAME may stand for: PINION_SECRET_<NAME> of the environment, by NAME. */
function referencedSecrets(env: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env)
      .filter(([name]) => name.startsWith(referencePrefix) && !notReferences.has(name))
      .map(([name, value]) => [name.slice(referencePrefix.length), value ?? ""]),
  );
}
