import { Http2SessionManager } from "@connectrpc/connect-node";

/**
 * HTTP/2 connections for a transport of connect-node. Node's own client names an IPv6 literal without its brackets as the
 * authority, which is none; here it has them.
 */
export class Sessions extends Http2SessionManager {
  override request(...[method, path, headers, options]: Parameters<Http2SessionManager["request"]>) {
    const { hostname, host } = new URL(this.authority);
    const named = hostname.startsWith("[") ? { ...headers, ":authority": host } : headers;
    return super.request(method, path, named, options);
  }
}
