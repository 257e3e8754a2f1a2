/**
 * Outgoing HTTP requests of the server: messages to webhooks, traces, downloads. All of them read
 * HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in the same way as the device client
 * (docs/proxies.md).
 */
import type { Agent } from "node:http";
import {
  type ClientRequest,
  type IncomingMessage,
  type RequestOptions,
  request as requestHttp,
} from "node:http";
import { request as requestHttps } from "node:https";
import { isIP } from "node:net";
import { httpAgentFor, type ProxySetting, proxyFor } from "@pinion/client/network";
import type { Reach } from "./addresses.ts";

export { ProxyError, proxyErrorOf } from "@pinion/client/network";

/** The agent of a request to a URL: through the URL's proxy, if the environment names a proxy. */
export function outgoingAgent(url: string | URL, proxy?: ProxySetting): Agent {
  return httpAgentFor(url, proxy ? { proxy } : {});
}

/**
 * A request of node:http or node:https, by the URL, through the URL's proxy. The caller writes and
 * ends the body, and listens for errors; a refusal by the proxy is a ProxyError. Throws a
 * ProxyError if the setting names no usable proxy.
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

export type Answer = {
  status: number;
  headers: IncomingMessage["headers"];
  /** The first {@link answerBytesMax} bytes of the answer. */
  text: string;
};

/** Maximum bytes read of an answer; the connection is closed after them. */
const answerBytesMax = 65_536;

/**
 * Posts a body to a URL that people of an org have chosen. `reach` decides about each address when
 * the address is dialled. A proxy looks names up itself, so a name is looked up and judged here
 * before the request goes to the proxy. Redirects that keep the method (307, 308) are followed up
 * to `redirectsMax` times, under the same rule. Rejects with an AddressRefused, a ProxyError, or an
 * error of the network.
 */
export async function post(
  url: URL,
  options: {
    headers: Record<string, string>;
    body: string;
    reach: Reach;
    signal: AbortSignal;
    redirectsMax: number;
  },
): Promise<Answer> {
  let at: URL = url;
  for (let redirects = 0; ; redirects++) {
    const answer: Answer = await postOnce(at, options);
    const { location } = answer.headers;
    const isKept = answer.status === 307 || answer.status === 308;
    if (!isKept || location === undefined || redirects >= options.redirectsMax) return answer;
    const next = URL.parse(location, at.href);
    if (!next || (next.protocol !== "https:" && next.protocol !== at.protocol)) return answer;
    at = next;
  }
}

async function postOnce(
  url: URL,
  { headers, body, reach, signal }: Parameters<typeof post>[1],
): Promise<Answer> {
  // The socket calls `reach.lookup` for names only, and never for an address or behind a proxy.
  if (isIP(url.hostname.replace(/^\[|\]$/g, "")) !== 0 || proxyFor(url))
    await reach.requireHost(url.hostname);
  return new Promise((resolve, reject) => {
    const request = outgoingRequest(
      url,
      {
        method: "POST",
        signal,
        lookup: reach.lookup,
        headers: { ...headers, "content-length": String(Buffer.byteLength(body)) },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        const finish = () =>
          resolve({
            status: answer.statusCode ?? 0,
            headers: answer.headers,
            text: Buffer.concat(chunks).subarray(0, answerBytesMax).toString("utf8"),
          });
        answer.on("error", reject);
        answer.on("end", finish);
        answer.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes < answerBytesMax) return;
          finish();
          answer.destroy();
        });
      },
    );
    request.on("error", reject);
    request.end(body);
  });
}
