import { Http2SessionManager } from "@connectrpc/connect-node";

/**
 * HTTP/2 connections for a transport of connect-node. Node's client sends an IPv6 literal without
 * brackets as the authority, an invalid form; this class adds the brackets.
 */
export class Sessions extends Http2SessionManager {
  override request(...[method, path, headers, options]: Parameters<Http2SessionManager["request"]>) {
    const { hostname, host } = new URL(this.authority);
    const named = hostname.startsWith("[") ? { ...headers, ":authority": host } : headers;
    return super.request(method, path, named, options);
  }
}
