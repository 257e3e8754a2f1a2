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
import { isIP } from "node:net";
import { httpAgentFor, type ProxySetting, proxyFor } from "@pinion/client/network";
import type { Reach } from "./addresses.ts";

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

export type Answer = {
  status: number;
  headers: IncomingMessage["headers"];
  /** At most {@link answerBytesMax} of it. */
  text: string;
};

/** What is read of an answer; the rest is left. */
const answerBytesMax = 65_536;

/**
 * Posts a body to where people of an org may have it sent. Addresses are those that `reach` allows, judged as they are dialled;
 * behind a proxy, which looks the name up itself, by a look-up here before it. Redirects that keep the method (307, 308) are
 * followed, up to `redirectsMax`, under the same rule. Rejects with an AddressRefused, a ProxyError, or what the network says.
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
  // A socket looks up names alone, and a proxy what it is given.
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
