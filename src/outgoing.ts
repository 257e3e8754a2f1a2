/**
 * How this process reaches the world over HTTP: hooks out, traces, downloads. One meaning of HTTP_PROXY, HTTPS_PROXY,
 * ALL_PROXY and NO_PROXY for all of them, which is the device client's (docs/proxies.md).
 */
import type { Agent } from "node:http";
import {
  type ClientRequest,
  type IncomingMessage,
  type RequestOptions,
  request as requestHttp,
} from "node:http";
import { request as requestHttps } from "node:https";
import { httpAgentFor, type ProxySetting } from "@pinion/client/network";

export { ProxyError, proxyErrorOf } from "@pinion/client/network";

/** The agent of a request to a URL: through the proxy that the environment names for it, if it names one. */
export function outgoingAgent(url: string | URL, proxy?: ProxySetting): Agent {
  return httpAgentFor(url, proxy ? { proxy } : {});
}

/**
 * A request of node:http or node:https, as the URL says, through the proxy that leads there. The caller writes the body, ends
 * it, and listens for errors; a proxy's refusal is one, a ProxyError. Throws a ProxyError if the setting names no usable proxy.
 */
export function outgoingRequest(
  url: URL,
  options: Omit<RequestOptions, "agent"> & { proxy?: ProxySetting },
  onAnswer: (answer: IncomingMessage) => void,
): ClientRequest {
  const { proxy, ...rest } = options;
  const request = url.protocol === "https:" ? requestHttps : requestHttp;
  return request(url, { ...rest, agent: outgoingAgent(url, proxy) }, onAnswer);
}
