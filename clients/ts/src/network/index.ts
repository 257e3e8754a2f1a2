/**
 * `@pinion/client/network`: choice of the proxy for a URL, and an agent for requests through the
 * proxy. Without the rest of the package.
 */
export { httpAgentFor } from "./agent.ts";
export { ProxyError, type ProxyServer, type ProxySetting, proxyErrorOf, proxyFor } from "./proxy.ts";
export { openTunnel } from "./tunnel.ts";
