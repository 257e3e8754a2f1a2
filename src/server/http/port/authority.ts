/**
 * The host a request names: `Host` on HTTP/1, `:authority` on HTTP/2, or the authority of a target
 * in absolute form. Peers may write anything there, and later code builds URLs of the text, so the
 * port checks the authority once, before any handler sees the request.
 */
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { isIPv6 } from "node:net";

/** The problem of a request's authority, as text for the peer; undefined for a good authority. */
export type AuthorityProblem = string | undefined;

/** A name of 253 characters, an IPv6 address in brackets or an IPv4 address, with a port. */
const authorityCharactersMax = 262;
const portMax = 65_535;
/** Underscores are in the names of compose services and of pods. */
const namePattern = /^[A-Za-z0-9._-]+$/;
const shown = 'write it like "pinion.example.org", "127.0.0.1:7420" or "[::1]:7420"';

export function authorityProblem(authority: string | undefined): AuthorityProblem {
  if (authority === undefined) return `the request names no host; ${shown}`;
  if (authority === "") return `the request names an empty host; ${shown}`;
  if (authority.length > authorityCharactersMax) return `the host is longer than any name; ${shown}`;
  const parts = /^(\[[^\]]*\]|[^:]*)(?::([0-9]*))?$/.exec(authority);
  if (!parts) return `the host is no name and no address; ${shown}`;
  const [, host = "", port = ""] = parts;
  if (Number(port) > portMax || port.length > 5) return `the host's port is beyond ${portMax}; ${shown}`;
  const isBracketed = host.startsWith("[");
  const isHost = isBracketed ? isIPv6(host.slice(1, -1)) : namePattern.test(host);
  // The URL parser knows more of numbers: "1.2.3.4.5" is neither a name nor an address.
  if (!isHost || !URL.canParse(`http://${authority}`)) return `the host is no name and no address; ${shown}`;
  return undefined;
}

/** The host named by a request whose authority has passed the checks. */
export function authorityOf(request: { headers: IncomingHttpHeaders }): string | undefined {
  return (request.headers[":authority"] as string | undefined) ?? request.headers.host;
}

/**
 * Checks an HTTP/2 request: an HTTP/1 proxy may send both `:authority` and `host`, and both must
 * agree.
 */
export function http2Problem(headers: IncomingHttpHeaders): AuthorityProblem {
  const authority = headers[":authority"] as string | undefined;
  const { host } = headers;
  if (authority !== undefined && host !== undefined && authority.toLowerCase() !== host.toLowerCase()) {
    return `":authority" and "host" name different hosts; send one of them`;
  }
  return authorityProblem(authority ?? host);
}

/**
 * Checks an HTTP/1 request. A target in absolute form is rewritten for handlers: the path to `url`,
 * the authority to the header `host` (RFC 9112, 3.2.2).
 */
export function http1Problem(request: IncomingMessage): AuthorityProblem {
  const named = request.rawHeaders.filter((text, index) => index % 2 === 0 && text.toLowerCase() === "host");
  if (named.length > 1) return "the request names more than one host";
  const problem = authorityProblem(request.headers.host);
  const target = request.url ?? "";
  if (problem !== undefined || target.startsWith("/")) return problem;
  if (target === "*") return request.method === "OPTIONS" ? undefined : 'the target "*" is for OPTIONS';
  const absolute = /^https?:\/\/([^/?#]*)([^#]*)/i.exec(target);
  if (!absolute) return "the target is no path and no URL; write it like /healthz";
  const [, authority = "", path = ""] = absolute;
  const absoluteProblem = authorityProblem(authority);
  if (absoluteProblem === undefined) {
    request.headers.host = authority;
    request.url = path.startsWith("/") ? path : `/${path}`;
  }
  return absoluteProblem;
}
