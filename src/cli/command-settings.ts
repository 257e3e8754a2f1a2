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
    .describe("Who you are; default: the token file of the data directory, then ~/.config/pinion/token"),
  PINION_CONTEXT: z
    .string()
    .optional()
    .describe(
      "The context of `pinion login` that commands use; default: the data directory, then the current one",
    ),
  PINION_DATA: z.string().default(".pinion").describe("Where `up` and `serve` keep their state"),
  PINION_STATE_DIR: z
    .string()
    .optional()
    .describe("Where a daemon keeps its identity and its outbox; default: ~/.local/state/pinion/device"),
  PINION_TO_DATABASE_URL: z
    .string()
    .optional()
    .describe("The database of the cell to which `pinion orgs move` moves an org"),
  PINION_DEBUG: z.string().optional().describe("Set to anything: errors come with where they come from"),
  NO_COLOR: z.string().optional().describe("Set to anything: no colours"),
  FORCE_COLOR: z.string().optional().describe("Set to anything but 0: colours also where no terminal is"),
  XDG_CONFIG_HOME: z.string().optional().describe("Where ~/.config is meant to be"),
  XDG_STATE_HOME: z.string().optional().describe("Where ~/.local/state is meant to be"),
  HTTPS_PROXY: z
    .string()
    .optional()
    .describe("The proxy for https:// servers, also in lower case; see docs/proxies.md"),
  HTTP_PROXY: z.string().optional().describe("The proxy for http:// servers; never for this machine itself"),
  ALL_PROXY: z.string().optional().describe("The proxy for either, where neither of the above is set"),
  NO_PROXY: z.string().optional().describe("Hosts, domains and networks that are reached without a proxy"),
  NODE_EXTRA_CA_CERTS: z
    .string()
    .optional()
    .describe("PEM authorities that commands and daemons trust besides the usual ones"),
});
