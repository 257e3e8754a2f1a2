import { z } from "zod";
import { credentialsOf, credentialsProblem } from "../network/credentials.ts";
import { ConfigError } from "./config-error.ts";
import { count, type SettingsOf } from "./fields.ts";

/** How to reach NATS. */
export type NatsConfig = {
  /** host:port */
  servers: string[];
  subject: string;
  user: string | undefined;
  password: string | undefined;
  token: string | undefined;
  credentialsFile: string | undefined;
  tls: { caFile: string | undefined; certFile: string | undefined; keyFile: string | undefined } | undefined;
};

/** The database, and the bus between replicas. */
export const databaseSettings = {
  DATABASE_URL: z
    .string()
    .min(1)
    .describe(
      "PostgreSQL ≥ 15; may go through a pooler in transaction mode; without it `serve` and `up` start an embedded one",
    ),
  DATABASE_DIRECT_URL: z
    .string()
    .min(1)
    .optional()
    .describe(
      "PostgreSQL without a pooler, for LISTEN and migrations; set this variable only if DATABASE_URL goes through a pooler. Default: DATABASE_URL",
    ),
  PINION_DATABASE_CONNECTIONS: count(10, 2, 200, "Connections for requests, per replica"),
  PINION_BUS: z
    .enum(["postgres", "nats"])
    .default("postgres")
    .describe("How replicas hear of each other; all replicas of a database have the same"),
  PINION_NATS_URL: z
    .string()
    .optional()
    .describe(
      "NATS servers by commas, nats://host:4222 or tls://user:password@host:4222, for PINION_BUS=nats",
    ),
  PINION_NATS_SUBJECT: z
    .string()
    .regex(/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/)
    .max(100)
    .default("pinion")
    .describe("The beginning of the subjects; databases that share a NATS account need different ones"),
  PINION_NATS_TOKEN: z.string().optional().describe("Token for NATS"),
  PINION_NATS_CREDENTIALS_FILE: z.string().optional().describe("NATS .creds file (JWT and seed)"),
  PINION_NATS_CA_FILE: z.string().optional().describe("PEM authorities of the NATS servers; turns TLS on"),
  PINION_NATS_CERT_FILE: z.string().optional().describe("PEM certificate that this replica shows NATS"),
  PINION_NATS_KEY_FILE: z.string().optional().describe("PEM private key of PINION_NATS_CERT_FILE"),
};

export type DatabaseConfig = {
  databaseUrl: string;
  directDatabaseUrl: string;
  connectionsMax: number;
  /** The bus is NATS; otherwise PostgreSQL. */
  nats: NatsConfig | undefined;
};

type Settings = SettingsOf<typeof databaseSettings>;

export function databaseConfig(s: Settings): DatabaseConfig {
  return {
    databaseUrl: s.DATABASE_URL,
    directDatabaseUrl: s.DATABASE_DIRECT_URL ?? s.DATABASE_URL,
    connectionsMax: s.PINION_DATABASE_CONNECTIONS,
    nats: s.PINION_BUS === "nats" ? requireNats(s) : undefined,
  };
}

/** Throws a ConfigError for URLs that are missing or none. */
function requireNats(s: Settings): NatsConfig {
  const texts = (s.PINION_NATS_URL ?? "").split(",").filter((text) => text.trim() !== "");
  const urls = texts.map((text) => URL.parse(text.trim()));
  if (urls.length === 0 || urls.some((url) => !url?.hostname || !/^(nats|tls):$/.test(url.protocol))) {
    throw new ConfigError(
      "PINION_BUS=nats needs PINION_NATS_URL: nats://host:4222 or tls://host:4222, several by commas",
    );
  }
  if ((s.PINION_NATS_CERT_FILE === undefined) !== (s.PINION_NATS_KEY_FILE === undefined)) {
    throw new ConfigError(
      "PINION_NATS_CERT_FILE and PINION_NATS_KEY_FILE belong together: set both or neither",
    );
  }
  const servers = urls.filter((url) => url !== null);
  const named = servers.find((url) => url.username !== "");
  const problem = named && credentialsProblem(named);
  if (problem) throw new ConfigError(`PINION_NATS_URL: ${problem}`);
  const credentials = named && credentialsOf(named);
  const isTls = servers.some((url) => url.protocol === "tls:") || s.PINION_NATS_CA_FILE !== undefined;
  return {
    servers: servers.map((url) => `${url.hostname}:${url.port || "4222"}`),
    subject: s.PINION_NATS_SUBJECT,
    user: credentials?.name,
    password: credentials?.password,
    token: s.PINION_NATS_TOKEN,
    credentialsFile: s.PINION_NATS_CREDENTIALS_FILE,
    tls: isTls
      ? {
          caFile: s.PINION_NATS_CA_FILE,
          certFile: s.PINION_NATS_CERT_FILE,
          keyFile: s.PINION_NATS_KEY_FILE,
        }
      : undefined,
  };
}
