import { isIPv6 } from "node:net";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { build } from "../build.ts";
import { cellPattern } from "../values/ids.ts";
import { ConfigError } from "./config-error.ts";
import { count, type SettingsOf } from "./fields.ts";

/**
 * Where scripts/build-executables.ts puts what it builds; a server that runs from a checkout finds
 * it there.
 */
const checkoutDownloads =
  build.kind === "source" ? fileURLToPath(new URL("../../dist/downloads", import.meta.url)) : undefined;

/** The port: addresses, TLS, and the bounds for callers without a good token. */
export const portSettings = {
  PINION_HOST: z.string().default("127.0.0.1").describe("Address to listen on"),
  PINION_PORT: count(7420, 0, 65_535, "Port to listen on; 0 lets the system choose"),
  PINION_PUBLIC_URL: z
    .url()
    .optional()
    .describe("The address at which people reach this server, for links in messages"),
  PINION_CELL: z
    .string()
    .regex(cellPattern, "must be a letter and then letters and digits, all lower-case, at most 16")
    .optional()
    .describe(
      "The name of this cell, for a front door that serves several cells; every token, code and address names the cell (docs/scaling.md)",
    ),
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
    .describe("The bearer token for /metrics, at least 16 characters; default: /metrics needs no token"),
  PINION_TLS_CERT_FILE: z
    .string()
    .optional()
    .describe("PEM certificate chain; with PINION_TLS_KEY_FILE turns TLS on"),
  PINION_TLS_KEY_FILE: z.string().optional().describe("PEM private key"),
  PINION_TLS_CLIENT_CA_FILE: z
    .string()
    .optional()
    .describe("PEM authorities; clients must then show a certificate"),
  PINION_PROBE_PORT: count(
    0,
    0,
    65_535,
    "A separate port for /healthz, /readyz and /metrics, which answers even while strangers crowd the main port; 0: none. Make the port reachable for probes alone",
  ),
  PINION_STRANGER_CONNECTIONS: count(
    8_192,
    16,
    1_000_000,
    "Maximum connections without a valid token, per replica; a further connection closes the one that was idle longest",
  ),
  PINION_STRANGER_CONNECTIONS_PER_ADDRESS: count(
    2_048,
    1,
    1_000_000,
    "Maximum connections without a valid token from one address (IPv6: a /64); not counted behind trusted proxies",
  ),
  PINION_STRANGER_REQUESTS_PER_ADDRESS: count(
    200,
    0,
    1_000_000,
    "Maximum requests per second without a token from one address, and ten times as many at once after a pause; 0: no limit",
  ),
  PINION_BODY_BYTES_MAX: count(
    134_217_728,
    4_194_304,
    17_179_869_184,
    "Maximum memory for incomplete bodies and messages of all callers with a token; beyond the maximum, the caller with the largest share loses its oldest incomplete body. Callers without a token have 16 MiB together (bytes)",
  ),
  PINION_TRUSTED_PROXIES: count(
    0,
    0,
    10,
    "Number of proxies in front of the server whose X-Forwarded-For is believed; 0: the header is ignored",
  ),
};

export type PortConfig = {
  host: string;
  port: number;
  /** Proxies in front, each of which appends to X-Forwarded-For whom it heard. */
  trustedProxies: number;
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
  tls: { certFile: string; keyFile: string; clientCaFile: string | undefined } | undefined;
  metricsToken: string | undefined;
};

type Settings = SettingsOf<typeof portSettings>;

export function portConfig(s: Settings): PortConfig {
  if ((s.PINION_TLS_CERT_FILE === undefined) !== (s.PINION_TLS_KEY_FILE === undefined)) {
    throw new ConfigError(
      "PINION_TLS_CERT_FILE and PINION_TLS_KEY_FILE belong together: set both or neither",
    );
  }
  return {
    host: hostOf(s.PINION_HOST),
    port: s.PINION_PORT,
    trustedProxies: s.PINION_TRUSTED_PROXIES,
    probePort: s.PINION_PROBE_PORT === 0 ? undefined : s.PINION_PROBE_PORT,
    strangers: {
      connections: s.PINION_STRANGER_CONNECTIONS,
      connectionsPerAddress: s.PINION_STRANGER_CONNECTIONS_PER_ADDRESS,
      requestsPerAddress: s.PINION_STRANGER_REQUESTS_PER_ADDRESS,
    },
    bodyBytesMax: s.PINION_BODY_BYTES_MAX,
    publicUrl: s.PINION_PUBLIC_URL,
    cell: s.PINION_CELL ?? "",
    downloads: s.PINION_DOWNLOADS ?? checkoutDownloads,
    tls:
      s.PINION_TLS_CERT_FILE && s.PINION_TLS_KEY_FILE
        ? {
            certFile: s.PINION_TLS_CERT_FILE,
            keyFile: s.PINION_TLS_KEY_FILE,
            clientCaFile: s.PINION_TLS_CLIENT_CA_FILE,
          }
        : undefined,
    metricsToken: s.PINION_METRICS_TOKEN,
  };
}

/** An address or a name to listen at that a URL can name, too; a ConfigError for any other text. */
function hostOf(text: string): string {
  // Brackets belong to an IPv6 literal within a URL; a socket wants it bare.
  const host = text.trim().replace(/^\[(.*)\]$/, "$1");
  if (isIPv6(host) && host.includes("%"))
    throw new ConfigError(
      `PINION_HOST: no URL can name the zone of ${host}; listen at "::" (all addresses), or at an address without "%"`,
    );
  if (isIPv6(host) || /^[A-Za-z0-9._-]+$/.test(host)) return host;
  throw new ConfigError(
    `PINION_HOST: ${JSON.stringify(text)} is neither an address nor a name; write it like 127.0.0.1, 0.0.0.0 or ::, and the port in PINION_PORT`,
  );
}
