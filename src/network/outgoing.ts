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

/**
 * Maximum interim answers (1xx) before the answer; a peer without end would keep the processor
 * busy.
 */
const interimMax = 20;

/** The agent of a request to a URL: through the URL's proxy, if the environment names a proxy. */
export function outgoingAgent(url: string | URL, proxy?: ProxySetting): Agent {
  return httpAgentFor(url, proxy ? { proxy } : {});
}

/**
 * A request of node:http or node:https, by the URL, through the URL's proxy. The caller writes and
 * ends the body, and listens for errors; a refusal by the proxy is a ProxyError, and a change to
 * another protocol is an error, too. Throws a ProxyError if the setting names no usable proxy.
 */
export function outgoingRequest(
  url: URL,
  options: Omit<RequestOptions, "agent"> & { proxy?: ProxySetting },
  onAnswer: (answer: IncomingMessage) => void,
): ClientRequest {
  const { proxy, ...rest } = options;
  const send = url.protocol === "https:" ? requestHttps : requestHttp;
  const request = send(url, { ...rest, agent: outgoingAgent(url, proxy) }, onAnswer);
  let interim = 0;
  request.on("information", () => {
    if (++interim > interimMax) request.destroy(new Error("answered 1xx again and again, and no more"));
  });
  // Node makes no response of a switch to another protocol, and leaves the socket to the caller.
  request.on("upgrade", (message, socket) => {
    socket.destroy();
    request.emit("error", new Error(`answered ${message.statusCode}, a change to another protocol`));
  });
  return request;
}

export type Answer = {
  status: number;
  headers: IncomingMessage["headers"];
  /** The beginning of the answer's text, as far as it came in time; empty for a compressed one. */
  text: string;
};

/** Maximum bytes read of an answer's text; the connection is closed after them. */
const textBytesMax = 65_536;
/**
 * Milliseconds that an answer's text may take. The status came before, and says what became of the
 * message.
 */
const textMsMax = 2_000;

/**
 * Posts a body to a URL that people of an org have chosen. `reach` decides about each address when
 * the address is dialled. A proxy looks names up itself, so a name is looked up and judged here
 * before the request goes to the proxy. Redirects that keep the method (307, 308) are followed up
 * to `redirectsMax` times, under the same rule. Resolves by the answer's status: a text that does
 * not end, or is cut off, changes nothing. Rejects with an AddressRefused, a ProxyError, or an
 * error of the network, at the latest when the signal aborts.
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
    const message = await postOnce(at, options);
    const next = redirects < options.redirectsMax ? nextOf(message, at) : undefined;
    if (next === undefined) {
      const { statusCode: status = 0, headers } = message;
      return { status, headers, text: await textOf(message) };
    }
    message.destroy();
    at = next;
  }
}

/** The address to which an answer sends the same request, never from https to http. */
function nextOf({ statusCode, headers }: IncomingMessage, at: URL): URL | undefined {
  if ((statusCode !== 307 && statusCode !== 308) || headers.location === undefined) return undefined;
  const next = URL.parse(headers.location, at.href);
  return next?.protocol === "https:" || next?.protocol === at.protocol ? next : undefined;
}

/** Resolves with the answer's head; the caller reads or destroys the rest. */
async function postOnce(
  url: URL,
  { headers, body, reach, signal }: Parameters<typeof post>[1],
): Promise<IncomingMessage> {
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
      (message) => {
        // An error after the head is an end of the text.
        message.on("error", () => {});
        resolve(message);
      },
    );
    request.on("error", reject);
    request.on("close", () => reject(new Error("closed the connection without an answer")));
    request.end(body);
  });
}

function textOf(message: IncomingMessage): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const chunks: Buffer[] = [];
  let bytes = 0;
  const finish = () => {
    clearTimeout(timer);
    message.destroy();
    const isPlain = (message.headers["content-encoding"] ?? "identity") === "identity";
    resolve(isPlain ? Buffer.concat(chunks).subarray(0, textBytesMax).toString("utf8") : "");
  };
  const timer = setTimeout(finish, textMsMax);
  message.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes >= textBytesMax) finish();
  });
  message.once("end", finish);
  message.once("close", finish);
  if (message.destroyed || message.readableEnded) finish();
  return promise;
}
