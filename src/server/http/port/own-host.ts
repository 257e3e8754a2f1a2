/**
 * Protection against DNS rebinding. A foreign web page whose host name resolves to 127.0.0.1 can
 * reach a server on loopback through the user's browser. The page's requests name the foreign host;
 * the server refuses them, even where it asks for no token.
 */
import type { ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";
import { isLoopback } from "../../../network/loopback.ts";

export type HostCheck = (authority: string | undefined) => string | undefined;

/**
 * Returns a check that answers a problem for a foreign authority at a server that listens on
 * loopback. A server that other machines reach accepts every authority.
 */
export function createHostCheck(options: {
  host: string;
  publicUrl: string | undefined;
  /** A proxy passes on any host name that clients call it by. */
  isBehindProxies: boolean;
}): HostCheck {
  if (!isOwnName(options.host) || options.isBehindProxies) return () => undefined;
  const own = options.publicUrl ? new URL(options.publicUrl).hostname : undefined;
  return (authority) => {
    const url = `http://${authority ?? ""}`;
    const name = URL.canParse(url) ? new URL(url).hostname : "";
    if (isOwnName(name) || name === own) return undefined;
    return (
      `this server listens on loopback only and is not called ${JSON.stringify(name)}; use localhost, ` +
      "or name the host of a proxy in front with PINION_PUBLIC_URL"
    );
  };
}

function isOwnName(host: string): boolean {
  const bare = host
    .toLowerCase()
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "");
  return isLoopback(bare) || bare.endsWith(".localhost");
}

/** 421 Misdirected Request: the request names another server. */
export function refuseHost(response: ServerResponse | Http2ServerResponse, problem: string): void {
  (response as ServerResponse).writeHead(421, { "content-type": "text/plain" });
  response.end(`${problem}\n`);
}
