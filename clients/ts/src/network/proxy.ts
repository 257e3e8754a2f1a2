/**
 * Choice of the proxy for a server. `proxy-from-env` chooses among HTTP_PROXY, HTTPS_PROXY,
 * ALL_PROXY and NO_PROXY for a URL, in upper or lower case. Pinion adds four rules: variables never
 * apply to loopback; a host in NO_PROXY includes its subdomains (as in curl and Go); NO_PROXY may
 * list networks (10.0.0.0/8) and IPv6 addresses; a proxy without a scheme is an HTTP proxy.
 * docs/proxies.md has the table.
 */
import { BlockList, isIP, isIPv4 } from "node:net";
import { getProxyForUrl } from "proxy-from-env";

/**
 * A proxy named for Pinion itself; takes precedence over the variables, and applies to loopback
 * too.
 */
export interface ProxySetting {
  /** "http://name:password@host:port", "host:port", or "none" for no proxy at all. */
  url: string;
  /** Name of the setting in messages, "--proxy". */
  setting: string;
}

/** A parsed proxy setting. */
export interface ProxyServer {
  protocol: "http" | "https" | "socks4" | "socks5";
  /** Without IPv6 brackets. */
  hostname: string;
  port: number;
  /** Decoded; undefined if the setting has none. */
  credentials: { name: string; password: string } | undefined;
  /** Name of the setting: "HTTPS_PROXY", "--proxy". */
  setting: string;
  /** Address for messages, without credentials. */
  shown: string;
}

/** A proxy or its setting is at fault. `advice` gives the remedy. */
export class ProxyError extends Error {
  override name = "ProxyError";
  readonly setting: string;
  readonly advice: string;

  constructor(message: string, options: { setting: string; advice: string; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.setting = options.setting;
    this.advice = options.advice;
  }
}

/** The ProxyError in an error's chain of causes, including the error itself. */
export function proxyErrorOf(error: unknown): ProxyError | undefined {
  // Chains of causes are short; the bound protects against a cycle.
  for (let depth = 0, at: unknown = error; depth < 8 && at instanceof Error; depth += 1, at = at.cause) {
    if (at instanceof ProxyError) return at;
  }
  return undefined;
}

/**
 * The proxy for a URL, or undefined for a direct connection. Throws a ProxyError if the applicable
 * setting names no usable proxy. Reads this process's variables at each call.
 */
export function proxyFor(url: string | URL, setting?: ProxySetting): ProxyServer | undefined {
  const { protocol, hostname, port } = new URL(url);
  const host = bare(hostname);
  const target = { host, port: Number(port) || (protocol === "https:" ? 443 : 80) };
  if (setting !== undefined) {
    if (isNoProxy(setting.url) || isExempt(target)) return undefined;
    return parseProxy(setting.url, setting.setting);
  }
  if (isLoopback(host) || isExempt(target)) return undefined;
  if (getProxyForUrl(`${protocol}//${hostname}:${target.port}`) === "") return undefined;
  const found = variableFor(protocol);
  return found === undefined ? undefined : parseProxy(found.value, found.name);
}

/** Throws a ProxyError for an invalid setting; an address and "none" are valid. */
export function checkProxySetting({ url, setting }: ProxySetting): void {
  if (!isNoProxy(url)) parseProxy(url, setting);
}

const isNoProxy = (text: string) => /^(none|direct|)$/i.test(text.trim());

/**
 * The variable used by the library: lower case has precedence, and an empty value counts as unset.
 */
function variableFor(protocol: string): { name: string; value: string } | undefined {
  const scheme = protocol.slice(0, -1);
  for (const name of [`${scheme}_proxy`, `${scheme}_PROXY`.toUpperCase(), "all_proxy", "ALL_PROXY"]) {
    const value = process.env[name];
    if (value) return { name, value };
  }
  return undefined;
}

const DEFAULT_PORTS: Record<string, number> = { http: 80, https: 443, socks4: 1080, socks5: 1080 };
/**
 * The "a" and "h" of curl's schemes mean: the proxy resolves the name. Every proxy here does so.
 */
const PROTOCOLS: Record<string, ProxyServer["protocol"]> = {
  "http:": "http",
  "https:": "https",
  "socks:": "socks5",
  "socks4:": "socks4",
  "socks4a:": "socks4",
  "socks5:": "socks5",
  "socks5h:": "socks5",
};

function parseProxy(text: string, setting: string): ProxyServer {
  const trimmed = text.trim();
  const shown = withoutCredentials(trimmed);
  const unusable = (what: string) =>
    new ProxyError(`${setting} is "${shown}", ${what}`, {
      setting,
      advice: `write ${setting} like http://proxy.example.org:3128, or with a name and a password http://name:password@proxy.example.org:3128`,
    });
  // URL does not parse the authority of an unknown scheme, so every proxy is parsed as http.
  const [, scheme = "http:", rest = ""] = /^(?:([a-z][a-z0-9+.-]*:)\/\/)?(.*)$/is.exec(trimmed) ?? [];
  const protocol = PROTOCOLS[scheme.toLowerCase()];
  if (protocol === undefined) throw unusable("and only http, https, socks4 and socks5 proxies can be used");
  const readable = `http://${rest}`;
  if (!URL.canParse(readable)) throw unusable("which is no address of a proxy");
  const url = new URL(readable);
  if (url.hostname === "") throw unusable("which names no host");
  const isPort80 = /:0*80\/?$/.test(url.origin === "null" ? "" : rest.replace(/[/?#].*$/, ""));
  const port = url.port !== "" ? Number(url.port) : isPort80 ? 80 : (DEFAULT_PORTS[protocol] ?? 80);
  if (port === 0) throw unusable("and nothing listens on port 0");
  return {
    protocol,
    hostname: bare(url.hostname),
    port,
    credentials: credentialsOf(url, unusable),
    setting,
    shown: `${protocol}://${url.hostname}:${port}`,
  };
}

function credentialsOf(url: URL, unusable: (what: string) => ProxyError): ProxyServer["credentials"] {
  if (url.username === "" && url.password === "") return undefined;
  try {
    return { name: decodeURIComponent(url.username), password: decodeURIComponent(url.password) };
  } catch {
    throw unusable('whose name or password has a "%" in it that must be written as %25');
  }
}

/** All text up to the last "@" may be a password, also with a "/" not written as %2F. */
function withoutCredentials(text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)?.*@/is, "$1…@");
}

const bare = (hostname: string) =>
  hostname
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "")
    .toLowerCase();

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("0.0.0.0", "ipv4");
loopback.addAddress("::1", "ipv6");
loopback.addAddress("::", "ipv6");

/** True for names and addresses of this machine, without a look-up. */
export function isLoopback(host: string): boolean {
  if (host === "localhost" || host.endsWith(".localhost")) return true;
  return isIP(host) !== 0 && loopback.check(host, isIPv4(host) ? "ipv4" : "ipv6");
}

/**
 * Applies NO_PROXY: a list of hosts with their subdomains, addresses, networks, and "*"; each entry
 * may have a port.
 */
function isExempt(target: { host: string; port: number }): boolean {
  const list = process.env.no_proxy || process.env.NO_PROXY || "";
  return list
    .split(/[\s,;]+/)
    .filter((entry) => entry !== "")
    .some((entry) => matches(entry.toLowerCase(), target));
}

function matches(entry: string, { host, port }: { host: string; port: number }): boolean {
  if (entry === "*") return true;
  const [, network, prefix] = /^\[?([0-9a-f.:]+)\]?\/(\d{1,3})$/.exec(entry) ?? [];
  if (network !== undefined) return isIn(host, network, Number(prefix));
  const text = entry.replace(/^[a-z]+:\/\//, "").replace(/\/$/, "");
  // The port of an IPv6 address follows the brackets; other entries have at most a colon before the
  // port.
  const [, name = text, portText] =
    /^\[([^\]]+)\](?::(\d+))?$/.exec(text) ?? (isIP(text) === 6 ? [] : (/^([^:]*):(\d+)$/.exec(text) ?? []));
  if (portText !== undefined && Number(portText) !== port) return false;
  if (isIP(name) !== 0) return isIn(host, name, isIPv4(name) ? 32 : 128);
  const domain = name.replace(/^\*?\.+/, "").replace(/\.$/, "");
  if (domain === "*" || (domain === "" && name.startsWith("*"))) return true;
  return domain !== "" && (host === domain || host.endsWith(`.${domain}`));
}

/**
 * True if an address lies in a network; always false for a host name, which is not resolved here.
 */
function isIn(host: string, network: string, prefix: number): boolean {
  const [family, familyOfHost] = [isIP(network), isIP(host)];
  if (family === 0 || familyOfHost === 0 || prefix > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(network, prefix, family === 4 ? "ipv4" : "ipv6");
  return list.check(host, familyOfHost === 4 ? "ipv4" : "ipv6");
}
