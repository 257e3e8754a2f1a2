/** `@pinion/client/network`: which proxy leads where, and an agent for requests that go there. Without the rest of the package. */
export { httpAgentFor } from "./agent.ts";
export { ProxyError, type ProxyServer, type ProxySetting, proxyErrorOf, proxyFor } from "./proxy.ts";
export { openTunnel } from "./tunnel.ts";
