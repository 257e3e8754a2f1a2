import type { ClientRequestArgs } from "node:http";
import * as http from "node:http";
import * as https from "node:https";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import { type ProxyServer, type ProxySetting, proxyFor } from "./proxy.ts";
import { openTunnel } from "./tunnel.ts";

/**
 * Agent for node:http and node:https requests to a URL: through the proxy named for the URL by the
 * setting or the variables, or direct. Used for all requests over HTTP/1.1 (hooks, downloads,
 * traces). Throws a ProxyError if the setting names no usable proxy; a proxy's refusal is the
 * request's error.
 */
export function httpAgentFor(
  url: string | URL,
  options: { proxy?: ProxySetting; agent?: https.AgentOptions } = {},
): http.Agent {
  const isSecure = new URL(url).protocol === "https:";
  const proxy = proxyFor(url, options.proxy);
  if (proxy === undefined) return isSecure ? new https.Agent(options.agent) : new http.Agent(options.agent);
  return isSecure ? new TunnelTlsAgent(proxy, options.agent) : new TunnelAgent(proxy, options.agent);
}

type Made = (error: Error | null, socket: Duplex) => void;

/** A tunnel for http:// too: intermediaries see only the address of the server. */
class TunnelAgent extends http.Agent {
  readonly #proxy: ProxyServer;

  constructor(proxy: ProxyServer, options: http.AgentOptions = {}) {
    super(options);
    this.#proxy = proxy;
  }

  override createConnection(options: ClientRequestArgs, made?: Made): undefined {
    openTunnel(this.#proxy, targetOf(options, 80)).then(
      (socket) => made?.(null, socket),
      (error: Error) => made?.(error, undefined as never),
    );
  }
}

class TunnelTlsAgent extends https.Agent {
  readonly #proxy: ProxyServer;

  constructor(proxy: ProxyServer, options: https.AgentOptions = {}) {
    super(options);
    this.#proxy = proxy;
  }

  override createConnection(options: ClientRequestArgs & ConnectionOptions, made?: Made): undefined {
    const target = targetOf(options, 443);
    openTunnel(this.#proxy, target).then(
      (socket) => {
        const servername = isIP(target.host) === 0 ? { servername: target.host } : {};
        const { path: _path, ...rest } = options;
        made?.(null, connectTls({ ...rest, ...servername, host: target.host, socket }));
      },
      (error: Error) => made?.(error, undefined as never),
    );
  }
}

const targetOf = ({ host, port }: ClientRequestArgs, standard: number) => ({
  host: (host ?? "localhost").replace(/^\[|\]$/g, ""),
  port: Number(port) || standard,
});
