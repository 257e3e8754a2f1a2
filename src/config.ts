import { fileURLToPath } from "node:url";
import { z } from "zod";
import { createReach, parseNetworks, type Reach } from "./addresses.ts";
import { build } from "./build.ts";
import { cellPattern, tokenKind } from "./ids.ts";
import type { LogFormat } from "./log.ts";
import { createKeyring, createReferences, KeyError, type Keyring, type References } from "./secrets.ts";
import type { TracingConfig } from "./tracing.ts";

/**
 * Everything that is configured, read once from the environment. No file of the server but environment.ts reads `process.env`.
 * Every setting states its meaning, default and unit in `describe`; the reference in docs is made from that.
 */

const milliseconds = (fallback: number, meaning: string) =>
  z.coerce.number().int().min(1).max(2_147_483_647).default(fallback).describe(`${meaning} (milliseconds)`);

const count = (fallback: number, min: number, max: number, meaning: string) =>
  z.coerce.number().int().min(min).max(max).default(fallback).describe(meaning);

/** "10s", "1m30s", or a number of seconds. */
const length = (fallback: string, meaning: string) =>
  z
    .string()
    .regex(/^(\d+|(\d+(ms|s|m|h))+)$/, "must be a length of time such as 10s or 1m")
    .default(fallback)
    .describe(meaning);

/** Where scripts/build-executables.ts puts what it builds; a server that runs from a checkout finds it there. */
const checkoutDownloads =
  build.kind === "source" ? fileURLToPath(new URL("../dist/downloads", import.meta.url)) : undefined;

export const serverSettings = z.object({
  PINION_HOST: z.string().default("127.0.0.1").describe("Address to listen on"),
  PINION_PORT: count(7420, 0, 65_535, "Port to listen on; 0 lets the system choose"),
  PINION_PUBLIC_URL: z.url().optional().describe("Where people reach this server, for links in messages"),
  PINION_CELL: z
    .string()
    .regex(cellPattern, "must be a letter and then letters and digits, all lower-case, at most 16")
    .optional()
    .describe(
      "The name of this cell, for a front door that serves several cells; every token, code and address names the cell (docs/scaling.md)",
    ),
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
  PINION_OIDC_CLIENT_ID: z.string().optional().describe("What the provider knows this server as"),
  PINION_OIDC_CLIENT_SECRET: z.string().optional().describe("The secret that goes with it"),
  PINION_OIDC_NAME: z
    .string()
    .max(60)
    .optional()
    .describe("The provider's name on the button; default: its host"),
  PINION_OIDC_SCOPES: z
    .string()
    .default("openid email profile")
    .describe("The scopes that are asked of the provider, with blanks between them"),
  PINION_OIDC_ORG: z.string().default("local").describe("The org into which its people sign in"),
  PINION_OIDC_ROLE_CLAIM: z
    .string()
    .default("groups")
    .describe("The claim that says what a person is: a text or a list of texts"),
  PINION_OIDC_ROLES: z
    .string()
    .regex(/^([^=,]+=(owner|admin|member)(,|$))*$/, "must be like ops=admin,staff=member")
    .default("")
    .describe(
      "Which of its values make a person what, for example ops=admin,staff=member; *=member lets in everybody whom the provider knows; default: members alone sign in, as what they are",
    ),
  PINION_LOG_LEVEL: z
    .enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"])
    .default("info")
    .describe("Least severe level that is logged"),
  PINION_LOG_FORMAT: z
    .enum(["auto", "json", "pretty"])
    .default("auto")
    .describe("Lines of JSON, or lines for people; auto: for people on a terminal"),
  PINION_DOWNLOADS: z
    .string()
    .optional()
    .describe(
      "Folder of the programs that install.sh fetches from this server (`npm run build:executables` makes it); default: dist/downloads of a checkout",
    ),
  PINION_METRICS_TOKEN: z
    .string()
    .min(16)
    .optional()
    .describe("What /metrics wants as bearer token, 16 characters at least; default: it is open to all"),
  PINION_OTLP_ENDPOINT: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe(
      "Base URL of an OpenTelemetry collector that takes OTLP over HTTP, for example http://localhost:4318; default: OTEL_EXPORTER_OTLP_ENDPOINT, and without it no traces",
    ),
  PINION_TRACE_RATIO: z.coerce
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe("The share of runs and calls that are traced, 0 to 1"),
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
      "PostgreSQL without a pooler, for LISTEN and migrations; set it if DATABASE_URL goes through one, and only then. Default: DATABASE_URL",
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
    .describe("What the subjects begin with; another one for each database that shares a NATS account"),
  PINION_NATS_TOKEN: z.string().optional().describe("Token for NATS"),
  PINION_NATS_CREDENTIALS_FILE: z.string().optional().describe("NATS .creds file (JWT and seed)"),
  PINION_NATS_CA_FILE: z.string().optional().describe("PEM authorities of the NATS servers; turns TLS on"),
  PINION_NATS_CERT_FILE: z.string().optional().describe("PEM certificate that this replica shows NATS"),
  PINION_NATS_KEY_FILE: z.string().optional().describe("PEM private key of that"),
  PINION_TLS_CERT_FILE: z
    .string()
    .optional()
    .describe("PEM certificate chain; with PINION_TLS_KEY_FILE turns TLS on"),
  PINION_TLS_KEY_FILE: z.string().optional().describe("PEM private key"),
  PINION_TLS_CLIENT_CA_FILE: z
    .string()
    .optional()
    .describe("PEM authorities; clients must then show a certificate"),
  PINION_HEARTBEAT_INTERVAL_MS: milliseconds(20_000, "How often devices beat"),
  PINION_HEARTBEAT_TTL_MS: milliseconds(
    60_000,
    "Silence after which a session is closed and its attempts are lost",
  ),
  PINION_HELLO_DEADLINE_MS: milliseconds(10_000, "Time for the first message of a stream"),
  PINION_ACCEPT_DEADLINE_MS: milliseconds(10_000, "Time to accept an assignment before it is pushed again"),
  PINION_SILENT_ATTEMPT_MS: milliseconds(180_000, "Silence after which an attempt that has beaten is reaped"),
  PINION_NEVER_BEAT_MS: milliseconds(7_200_000, "Age at which an attempt that never beat is reaped"),
  PINION_RUN_TIMEOUT_GRACE_MS: milliseconds(
    60_000,
    "How long after a run's timeout the server waits for its device before it ends the run itself",
  ),
  // Below the longest timer of Node with its tenth added.
  PINION_STREAM_AGE_MS: count(
    3_600_000,
    100,
    1_900_000_000,
    "Age at which a stream is drained, ± 10 % (milliseconds)",
  ),
  PINION_SWEEP_INTERVAL_MS: milliseconds(15_000, "How often lost notifications are made good"),
  PINION_LOOK_AHEAD_MS: count(
    2_000,
    0,
    60_000,
    "How long before they are due runs are recorded, and claimed for connected devices; 0: when they are due (milliseconds)",
  ),
  PINION_REAP_INTERVAL_MS: milliseconds(5_000, "How often lost attempts are looked for"),
  PINION_RETRY_BACKOFF_MS: milliseconds(
    10_000,
    "Delay before a second attempt; doubles with each further one",
  ),
  PINION_BACKOFF_AFTER_FAILURES: count(3, 1, 1_000, "Failures in a row after which a watcher is backed off"),
  PINION_PAUSE_AFTER_FAILURES: count(10, 1, 1_000, "Failures in a row after which a watcher is paused"),
  PINION_WATCHER_BACKOFF_MS: milliseconds(
    900_000,
    "First back-off of a watcher; doubles with each further failure",
  ),
  PINION_RETENTION_DAYS: count(30, 1, 3_650, "How long ended runs, slots and events are kept (days)"),
  PINION_CONVERSATION_DAYS: count(
    365,
    1,
    3_650,
    "After how long a conversation in which nobody spoke is forgotten, with its snapshot (days)",
  ),
  PINION_CLOCK_JUMP: z
    .enum(["confirm", "wait", "ignore"])
    .default("confirm")
    .describe(
      "When the database's clock jumps forward by more than an hour: delete and record nothing until it is confirmed or gone, until it has stayed for an hour, or take it as it is",
    ),
  PINION_MESSAGE_BYTES_MAX: count(
    4_194_304,
    65_536,
    67_108_864,
    "Largest message taken, after decompression (bytes)",
  ),
  PINION_DEVICE_STREAMS: z
    .enum(["bare", "connect"])
    .default("bare")
    .describe(
      "What serves device streams that come over gRPC: the bare HTTP/2 stream, or the Connect handler that serves all else",
    ),
  PINION_REQUESTS_PER_TOKEN: count(
    1_000,
    0,
    1_000_000,
    "Calls per second of one token, per replica, streams counted when they open; 0: no limit",
  ),
  PINION_REQUESTS_BURST: count(5_000, 1, 10_000_000, "Calls that one token may make at once after a rest"),
  PINION_FAILURES_PER_ADDRESS: count(
    100,
    0,
    1_000_000,
    "Unknown tokens and join codes per minute from one address (IPv6: a /64), per replica; beyond it tokens are looked up in a slow lane, and join codes refused; 0: no limit",
  ),
  PINION_RUNS_PER_ORG: count(
    100_000,
    1,
    10_000_000,
    "Active runs (pending, claimed, running) of one org; the org's metadata may say otherwise (runs_max)",
  ),
  PINION_TURNS_PER_ORG: count(
    10_000,
    1,
    10_000_000,
    "Live turns (pending, claimed, running) of one org (turns_max)",
  ),
  PINION_INTERVAL_MIN: length(
    "10s",
    "Shortest time between two slots of a schedule, for example 10s or 1m; the org's metadata may say otherwise (interval_min_ms); 0: none",
  ),
  PINION_WATCHERS_PER_ORG: count(100_000, 1, 10_000_000, "Watchers of one org (watchers_max)"),
  PINION_DEVICES_PER_ORG: count(
    50_000,
    1,
    10_000_000,
    "Devices of one org, with the join codes that are good for one (devices_max)",
  ),
  PINION_TOKENS_PER_ORG: count(
    10_000,
    1,
    10_000_000,
    "Tokens of people and services of one org that are good (tokens_max)",
  ),
  PINION_STREAMS_PER_ORG: count(
    2_000,
    1,
    1_000_000,
    "Server streams (WatchRun, WatchEvents) of one org that are open, per replica",
  ),
  PINION_BOOTSTRAP_TOKEN: z
    .string()
    .refine(
      (text) => tokenKind(text) === "pat",
      "is no token of a person; `pinion tokens generate` makes one",
    )
    .optional()
    .describe(
      "The owner's token of a first start, from a secret store; default: a new one, which is kept in the data directory. Later starts pass over it",
    ),
  PINION_PROBE_PORT: count(
    0,
    0,
    65_535,
    "A port of their own for /healthz, /readyz and /metrics, which answers however many strangers crowd the other one; 0: none. Reachable for probes alone",
  ),
  PINION_STRANGER_CONNECTIONS: count(
    8_192,
    16,
    1_000_000,
    "Connections on which no good token has come, per replica; beyond it the one that rested longest is closed",
  ),
  PINION_STRANGER_CONNECTIONS_PER_ADDRESS: count(
    2_048,
    1,
    1_000_000,
    "The same from one address (IPv6: a /64); behind trusted proxies not counted",
  ),
  PINION_STRANGER_REQUESTS_PER_ADDRESS: count(
    200,
    0,
    1_000_000,
    "Requests per second without a token from one address, ten times as many at once after a rest; 0: no limit",
  ),
  PINION_BODY_BYTES_MAX: count(
    134_217_728,
    4_194_304,
    17_179_869_184,
    "What is held of bodies and messages of all known callers; beyond it the caller that holds most loses the oldest that is not whole; strangers have 16 MiB (bytes)",
  ),
  PINION_STREAMS_MAX: count(20_000, 1, 1_000_000, "Device streams per replica"),
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
      "Networks beside the public internet that destinations and platforms may lead to, for example 10.1.0.0/16,127.0.0.1; * for all. Both are made by admins of an org, and what they reach is reached from this server",
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
  PINION_TRUSTED_PROXIES: count(
    0,
    0,
    10,
    "Proxies in front whose X-Forwarded-For is believed; 0: it is passed over",
  ),
  PINION_SHUTDOWN_MS: milliseconds(20_000, "Time for an orderly stop"),
});

export type ServerSettings = z.infer<typeof serverSettings>;

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

/** What a replica is configured with. Times in milliseconds, sizes in bytes. */
export type ReplicaConfig = {
  host: string;
  port: number;
  /** Proxies in front, each of which appends to X-Forwarded-For whom it heard. */
  trustedProxies: number;
  /** The owner's token of a first start; undefined: a new one. */
  bootstrapToken: string | undefined;
  /** Where probes and metrics are answered besides; undefined: nowhere else. */
  probePort: number | undefined;
  /** What those may hold who have shown no good token. */
  strangers: { connections: number; connectionsPerAddress: number; requestsPerAddress: number };
  /** What has come of bodies and messages of known callers that are not whole. */
  bodyBytesMax: number;
  publicUrl: string | undefined;
  /** The name in every token, code and address; "" for the only cell. */
  cell: string;
  /** Where the programs lie that machines fetch to become devices; undefined: there are none. */
  downloads: string | undefined;
  /** How long a browser stays signed in. */
  signInMs: number;
  oidc: OidcConfig | undefined;
  logLevel: ServerSettings["PINION_LOG_LEVEL"];
  databaseUrl: string;
  directDatabaseUrl: string;
  connectionsMax: number;
  /** The bus is NATS; otherwise PostgreSQL. */
  nats: NatsConfig | undefined;
  tls: { certFile: string; keyFile: string; clientCaFile: string | undefined } | undefined;
  session: {
    heartbeatIntervalMs: number;
    ttlMs: number;
    helloDeadlineMs: number;
    acceptDeadlineMs: number;
    ageMsMax: number;
    messageBytesMax: number;
    streamsMax: number;
    /** Device streams over gRPC are served on the bare HTTP/2 stream. */
    isBare: boolean;
  };
  reaper: {
    intervalMs: number;
    ttlMs: number;
    silentAttemptMs: number;
    neverBeatMs: number;
    runTimeoutGraceMs: number;
  };
  failures: {
    retryBackoffMs: number;
    backoffAfter: number;
    pauseAfter: number;
    watcherBackoffMs: number;
  };
  /** How often somebody may call, and how many streams an org may hold open, on this replica. */
  rates: {
    requestsPerToken: number;
    requestsBurst: number;
    failuresPerAddress: number;
    streamsPerOrg: number;
  };
  /** How much an org may have, unless its metadata says otherwise. */
  quotas: { runs: number; turns: number; watchers: number; devices: number; tokens: number };
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
  /** Shortest time between two slots of a schedule, unless the org's metadata says otherwise. */
  intervalMsMin: number;
  sweepIntervalMs: number;
  lookAheadMs: number;
  retentionDays: number;
  conversationDays: number;
  clockJump: "confirm" | "wait" | "ignore";
  shutdownMs: number;
  metricsToken: string | undefined;
  tracing: TracingConfig | undefined;
  /** The providers whose keys are in the environment, by name and in alphabetical order; the keys are not read. */
  installedProviders: string[];
};

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

function requireOidc(s: ServerSettings, issuer: string): OidcConfig {
  const missing = (
    ["PINION_PUBLIC_URL", "PINION_OIDC_CLIENT_ID", "PINION_OIDC_CLIENT_SECRET"] as const
  ).filter((name) => !s[name]);
  if (missing.length > 0) {
    throw new ConfigError(`PINION_OIDC_ISSUER needs ${missing.join(", ")} as well`);
  }
  const roles = s.PINION_OIDC_ROLES.split(",").filter(Boolean);
  return {
    issuer,
    clientId: s.PINION_OIDC_CLIENT_ID!,
    clientSecret: s.PINION_OIDC_CLIENT_SECRET!,
    name: s.PINION_OIDC_NAME ?? new URL(issuer).host,
    scopes: s.PINION_OIDC_SCOPES,
    orgId: s.PINION_OIDC_ORG,
    roleClaim: s.PINION_OIDC_ROLE_CLAIM,
    roles: new Map(
      roles.map(
        (pair) => pair.split("=").map((part) => part.trim()) as [string, "owner" | "admin" | "member"],
      ),
    ),
    publicUrl: s.PINION_PUBLIC_URL!,
  };
}

const unitsMs: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

function lengthMs(text: string): number {
  if (/^\d+$/.test(text)) return Number(text) * 1_000;
  return [...text.matchAll(/(\d+)(ms|s|m|h)/g)].reduce(
    (sum, [, count, unit]) => sum + Number(count) * unitsMs[unit!]!,
    0,
  );
}

/** Where the providers of models look for their keys; what is set there makes a provider installed. */
const providerKeys: Record<string, readonly string[]> = {
  anthropic: ["ANTHROPIC_API_KEY"],
  google: ["GEMINI_API_KEY", "GOOGLE_API_KEY"],
  groq: ["GROQ_API_KEY"],
  mistral: ["MISTRAL_API_KEY"],
  openai: ["OPENAI_API_KEY"],
  openrouter: ["OPENROUTER_API_KEY"],
};

/** Thrown for settings that are missing or wrong; the message names every one of them. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

/** The replica's configuration. Throws a ConfigError that names each wrong variable. */
export function replicaConfig(env: Record<string, string | undefined>): ReplicaConfig {
  const given = Object.fromEntries(
    Object.entries(env).filter(([, value]) => value !== undefined && value !== ""),
  );
  const parsed = serverSettings.safeParse(given);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => {
      const name = issue.path.join(".");
      const setting = serverSettings.shape[name as keyof ServerSettings];
      return `${name}: ${issue.message} — ${setting?.description ?? ""}`;
    });
    throw new ConfigError(`the configuration is not usable:\n  ${lines.join("\n  ")}`);
  }
  const s = parsed.data;
  if ((s.PINION_TLS_CERT_FILE === undefined) !== (s.PINION_TLS_KEY_FILE === undefined)) {
    throw new ConfigError(
      "PINION_TLS_CERT_FILE and PINION_TLS_KEY_FILE belong together: set both or neither",
    );
  }
  if (s.PINION_HEARTBEAT_TTL_MS < 2 * s.PINION_HEARTBEAT_INTERVAL_MS) {
    throw new ConfigError("PINION_HEARTBEAT_TTL_MS must be at least twice PINION_HEARTBEAT_INTERVAL_MS");
  }
  return {
    // Brackets belong to an IPv6 literal within a URL; a socket wants it bare.
    host: s.PINION_HOST.replace(/^\[(.*)\]$/, "$1"),
    port: s.PINION_PORT,
    publicUrl: s.PINION_PUBLIC_URL,
    cell: s.PINION_CELL ?? "",
    downloads: s.PINION_DOWNLOADS ?? checkoutDownloads,
    signInMs: lengthMs(s.PINION_SIGN_IN_LENGTH),
    oidc: s.PINION_OIDC_ISSUER ? requireOidc(s, s.PINION_OIDC_ISSUER) : undefined,
    logLevel: s.PINION_LOG_LEVEL,
    databaseUrl: s.DATABASE_URL,
    directDatabaseUrl: s.DATABASE_DIRECT_URL ?? s.DATABASE_URL,
    connectionsMax: s.PINION_DATABASE_CONNECTIONS,
    nats: s.PINION_BUS === "nats" ? requireNats(s) : undefined,
    tls:
      s.PINION_TLS_CERT_FILE && s.PINION_TLS_KEY_FILE
        ? {
            certFile: s.PINION_TLS_CERT_FILE,
            keyFile: s.PINION_TLS_KEY_FILE,
            clientCaFile: s.PINION_TLS_CLIENT_CA_FILE,
          }
        : undefined,
    session: {
      heartbeatIntervalMs: s.PINION_HEARTBEAT_INTERVAL_MS,
      ttlMs: s.PINION_HEARTBEAT_TTL_MS,
      helloDeadlineMs: s.PINION_HELLO_DEADLINE_MS,
      acceptDeadlineMs: s.PINION_ACCEPT_DEADLINE_MS,
      ageMsMax: s.PINION_STREAM_AGE_MS,
      messageBytesMax: s.PINION_MESSAGE_BYTES_MAX,
      streamsMax: s.PINION_STREAMS_MAX,
      isBare: s.PINION_DEVICE_STREAMS === "bare",
    },
    reaper: {
      intervalMs: s.PINION_REAP_INTERVAL_MS,
      ttlMs: s.PINION_HEARTBEAT_TTL_MS,
      silentAttemptMs: s.PINION_SILENT_ATTEMPT_MS,
      neverBeatMs: s.PINION_NEVER_BEAT_MS,
      runTimeoutGraceMs: s.PINION_RUN_TIMEOUT_GRACE_MS,
    },
    failures: {
      retryBackoffMs: s.PINION_RETRY_BACKOFF_MS,
      backoffAfter: s.PINION_BACKOFF_AFTER_FAILURES,
      pauseAfter: s.PINION_PAUSE_AFTER_FAILURES,
      watcherBackoffMs: s.PINION_WATCHER_BACKOFF_MS,
    },
    rates: {
      requestsPerToken: s.PINION_REQUESTS_PER_TOKEN,
      requestsBurst: s.PINION_REQUESTS_BURST,
      failuresPerAddress: s.PINION_FAILURES_PER_ADDRESS,
      streamsPerOrg: s.PINION_STREAMS_PER_ORG,
    },
    quotas: {
      runs: s.PINION_RUNS_PER_ORG,
      turns: s.PINION_TURNS_PER_ORG,
      watchers: s.PINION_WATCHERS_PER_ORG,
      devices: s.PINION_DEVICES_PER_ORG,
      tokens: s.PINION_TOKENS_PER_ORG,
    },
    secrets: {
      keyring: requireKeyring(s.PINION_SECRET_KEYS),
      references: createReferences(
        s.PINION_REFERENCE_ORGS.split(",").map((orgId) => orgId.trim()),
        referencedSecrets(given),
      ),
    },
    destinations: { reach: requireReach(s.PINION_DESTINATION_NETWORKS), smtp: smtpOf(s) },
    platforms: { leaseMs: s.PINION_PLATFORM_LEASE_MS, packages: s.PINION_PLATFORM_PACKAGES },
    intervalMsMin: lengthMs(s.PINION_INTERVAL_MIN),
    sweepIntervalMs: s.PINION_SWEEP_INTERVAL_MS,
    lookAheadMs: s.PINION_LOOK_AHEAD_MS,
    retentionDays: s.PINION_RETENTION_DAYS,
    conversationDays: s.PINION_CONVERSATION_DAYS,
    clockJump: s.PINION_CLOCK_JUMP,
    trustedProxies: s.PINION_TRUSTED_PROXIES,
    bootstrapToken: s.PINION_BOOTSTRAP_TOKEN,
    probePort: s.PINION_PROBE_PORT === 0 ? undefined : s.PINION_PROBE_PORT,
    strangers: {
      connections: s.PINION_STRANGER_CONNECTIONS,
      connectionsPerAddress: s.PINION_STRANGER_CONNECTIONS_PER_ADDRESS,
      requestsPerAddress: s.PINION_STRANGER_REQUESTS_PER_ADDRESS,
    },
    bodyBytesMax: s.PINION_BODY_BYTES_MAX,
    shutdownMs: s.PINION_SHUTDOWN_MS,
    metricsToken: s.PINION_METRICS_TOKEN,
    tracing: tracingOf(s, given),
    installedProviders: Object.entries(providerKeys)
      .filter(([, names]) => names.some((name) => Object.hasOwn(given, name)))
      .map(([provider]) => provider),
  };
}

const formatSetting = serverSettings.pick({ PINION_LOG_FORMAT: true });

/** How log lines are to look, for loggers that are made before the rest is read; a wrong word is as good as none. */
export function logFormat(env: Record<string, string | undefined>): LogFormat {
  const parsed = formatSetting.safeParse({ PINION_LOG_FORMAT: env.PINION_LOG_FORMAT || undefined });
  return parsed.data?.PINION_LOG_FORMAT ?? "auto";
}

const tracingSettings = serverSettings.pick({ PINION_OTLP_ENDPOINT: true, PINION_TRACE_RATIO: true });

/** Where a daemon sends its traces: the same variables as the server's. Throws a ConfigError. */
export function tracingConfig(env: Record<string, string | undefined>): TracingConfig | undefined {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value));
  const parsed = tracingSettings.safeParse(given);
  if (!parsed.success) {
    const lines = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new ConfigError(`the configuration of traces is not usable:\n  ${lines.join("\n  ")}`);
  }
  return tracingOf(parsed.data, given);
}

/** OpenTelemetry's own variables count where ours say nothing; the one for traces alone is a whole URL. */
function tracingOf(
  settings: z.infer<typeof tracingSettings>,
  env: Record<string, string | undefined>,
): TracingConfig | undefined {
  const ratio = settings.PINION_TRACE_RATIO;
  const base = settings.PINION_OTLP_ENDPOINT ?? env.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!settings.PINION_OTLP_ENDPOINT && env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) {
    return { url: env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, ratio };
  }
  return base ? { url: `${base.replace(/\/+$/, "")}/v1/traces`, ratio } : undefined;
}

/** Throws a ConfigError for URLs that are missing or none. */
function requireNats(s: ServerSettings): NatsConfig {
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
  const isTls = servers.some((url) => url.protocol === "tls:") || s.PINION_NATS_CA_FILE !== undefined;
  return {
    servers: servers.map((url) => `${url.hostname}:${url.port || "4222"}`),
    subject: s.PINION_NATS_SUBJECT,
    user: named && decodeURIComponent(named.username),
    password: named && decodeURIComponent(named.password),
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

/** The bus of this environment, if it is NATS. Throws a ConfigError; what else is configured does not matter. */
export function natsConfig(env: Record<string, string | undefined>): NatsConfig | undefined {
  if (env.PINION_BUS !== "nats") return undefined;
  return replicaConfig({ DATABASE_URL: "unused", ...env }).nats;
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

function smtpOf(s: ServerSettings): ReplicaConfig["destinations"]["smtp"] {
  if (s.PINION_SMTP_URL === undefined) return undefined;
  if (!URL.canParse(s.PINION_SMTP_URL)) throw new ConfigError("PINION_SMTP_URL: is no URL");
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
