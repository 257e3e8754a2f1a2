import { z } from "zod";

/**
 * Variables read by commands other than a server, each where used. Command-line options take
 * precedence.
 */
export const commandSettings = z.object({
  PINION_URL: z
    .url()
    .optional()
    .describe("The server; default: that of the data directory, then http://localhost:7420"),
  PINION_TOKEN: z
    .string()
    .optional()
    .describe(
      "The caller's token; default: the token file of the data directory, then ~/.config/pinion/token",
    ),
  PINION_CONTEXT: z
    .string()
    .optional()
    .describe(
      "The context of `pinion login` that commands use; default: the data directory, then the current one",
    ),
  PINION_DATA: z.string().default(".pinion").describe("The folder for the state of `up` and `serve`"),
  PINION_STATE_DIR: z
    .string()
    .optional()
    .describe("The folder for a daemon's identity and outbox; default: ~/.local/state/pinion/device"),
  PINION_TO_DATABASE_URL: z
    .string()
    .optional()
    .describe("The database of the cell to which `pinion orgs move` moves an org"),
  PINION_DEBUG: z.string().optional().describe("Any value: errors are printed with their stack"),
  NO_COLOR: z.string().optional().describe("Any value: no colours"),
  FORCE_COLOR: z.string().optional().describe("Any value but 0: colours also without a terminal"),
  XDG_CONFIG_HOME: z.string().optional().describe("The folder in place of ~/.config"),
  XDG_STATE_HOME: z.string().optional().describe("The folder in place of ~/.local/state"),
  HTTPS_PROXY: z
    .string()
    .optional()
    .describe("The proxy for https:// servers, also in lower case; see docs/proxies.md"),
  HTTP_PROXY: z.string().optional().describe("The proxy for http:// servers; never for this machine itself"),
  ALL_PROXY: z.string().optional().describe("The proxy for both, if neither of the above is set"),
  NO_PROXY: z.string().optional().describe("Hosts, domains and networks that are reached without a proxy"),
  NODE_EXTRA_CA_CERTS: z
    .string()
    .optional()
    .describe("PEM authorities that commands and daemons trust besides the usual ones"),
});
