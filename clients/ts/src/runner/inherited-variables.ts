import type { ExecutorType } from "./executor-settings.ts";

/** Variables that name the proxy to reach the network through. */
export const PROXY_ENV = [
  ...["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"],
  ...["http_proxy", "https_proxy", "all_proxy", "no_proxy"],
];

/** Variables for reaching the network through a proxy and for trusting the proxy's certificates. */
const NETWORK_ENV = [
  ...PROXY_ENV,
  ...["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"],
  ...["GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO", "PIP_CERT"],
];

const OWN_ENV =
  process.platform === "win32"
    ? ["PATH", "PATHEXT", "SYSTEMROOT", "COMSPEC", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA"]
    : [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
      ];

/**
 * Variables passed on by default: search paths, locale and network settings, without API keys or
 * other paid access.
 */
export const DEFAULT_ENV = [...OWN_ENV, ...NETWORK_ENV];

/** Further default variables of an agent: the location of its login and sessions. */
const AGENT_ENV: Partial<Record<ExecutorType, string[]>> = {
  "claude-code": ["CLAUDE_CONFIG_DIR"],
  codex: ["CODEX_HOME"],
  acp: ["CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"],
};

/** Variables inherited by the programs of an executor without a list of its own. */
export function inheritedVariables(type: ExecutorType): string[] {
  return [...DEFAULT_ENV, ...(AGENT_ENV[type] ?? [])];
}
