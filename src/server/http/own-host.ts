/**
 * Against DNS rebinding: a page from elsewhere whose name was made to point at 127.0.0.1 reaches a server that listens on
 * loopback, in the browser of whoever opened it. Its requests name that other host; what needs no token is not shown to it.
 */
import type { ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";

export type HostCheck = (authority: string | undefined) => string | undefined;

/** Answers a problem for an authority by which a server that listens at `host` is not called; none for one that others reach. */
export function createHostCheck(options: {
  host: string;
  publicUrl: string | undefined;
  /** A proxy passes on whatever name it is called by. */
  isBehindProxies: boolean;
}): HostCheck {
  if (!isLoopback(options.host) || options.isBehindProxies) return () => undefined;
  const own = options.publicUrl ? new URL(options.publicUrl).hostname : undefined;
  return (authority) => {
    const url = `http://${authority ?? ""}`;
    const name = URL.canParse(url) ? new URL(url).hostname : "";
    if (isLoopback(name) || name === own) return undefined;
    return (
      `this server listens on loopback only and is not called ${JSON.stringify(name)}; use localhost, ` +
      "or name the host of a proxy in front with PINION_PUBLIC_URL"
    );
  };
}

function isLoopback(host: string): boolean {
  const bare = host
    .toLowerCase()
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "");
  return (
    bare === "localhost" || bare.endsWith(".localhost") || /^127\.\d+\.\d+\.\d+$/.test(bare) || bare === "::1"
  );
}

/** 421: the request came to a server that it does not mean. */
export function refuseHost(response: ServerResponse | Http2ServerResponse, problem: string): void {
  (response as ServerResponse).writeHead(421, { "content-type": "text/plain" });
  response.end(`${problem}\n`);
}
