/**
 * The cookie of a signed-in browser, as the credential of its calls.
 *
 * A browser attaches a cookie to a request whichever page started the request, so the cookie counts
 * only for requests of the server's own page. SameSite=Strict keeps the cookie out of other sites'
 * requests. In addition a call must be marked as same-origin by the browser (Sec-Fetch-Site; Origin
 * for browsers without it) and must be a POST of a type that no form can send. The secret becomes
 * the call's `authorization`, and the guard checks it like every token.
 */
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { authorityOf } from "../http/port/authority.ts";
import type { Handler } from "../http/port/requests.ts";

type Request = IncomingMessage | Http2ServerRequest;

/**
 * The authority by which the browser reached the server, and whether the connection was encrypted.
 */
export type Reached = { authority: string; isSecure: boolean };

export function reachedBy(
  request: Pick<Request, "headers" | "socket">,
  publicUrl: string | undefined,
): Reached {
  const authority = authorityOf(request) ?? "";
  const isEncrypted = "encrypted" in request.socket && request.socket.encrypted === true;
  // A proxy in front with TLS passes on the authority that the browser used.
  const own = publicUrl ? new URL(publicUrl) : undefined;
  return { authority, isSecure: isEncrypted || (own?.protocol === "https:" && own.host === authority) };
}

/**
 * Cookies ignore ports: without the port in the name, two servers on one machine would overwrite
 * each other's cookie.
 */
function cookieName({ authority, isSecure }: Reached): string {
  const port = /:(\d+)$/.exec(authority)?.[1];
  return `${isSecure ? "__Host-" : ""}pinion${port ? `_${port}` : ""}`;
}

/** The Set-Cookie value that keeps the secret for `lifeMs` milliseconds, unreadable for scripts. */
export function signInCookie(reached: Reached, secret: string, lifeMs: number): string {
  return `${cookieName(reached)}=${secret}; ${attributes(reached)}; Max-Age=${Math.floor(lifeMs / 1_000)}`;
}

export function clearedCookie(reached: Reached): string {
  return `${cookieName(reached)}=; ${attributes(reached)}; Max-Age=0`;
}

function attributes({ isSecure }: Reached): string {
  return `Path=/; HttpOnly; SameSite=Strict${isSecure ? "; Secure" : ""}`;
}

export function readCookie(request: Request, name: string): string | undefined {
  for (const pair of (request.headers.cookie ?? "").split(";")) {
    const at = pair.indexOf("=");
    if (at > 0 && pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim();
  }
  return undefined;
}

/**
 * Adds the cookie's secret as the credential of a call of the page. A call with a credential of its
 * own keeps its own.
 */
export function withCookies(next: Handler, options: { publicUrl: string | undefined }): Handler {
  return (request, response) => {
    if (request.headers.authorization === undefined && request.headers.cookie !== undefined) {
      const reached = reachedBy(request, options.publicUrl);
      const secret = readCookie(request, cookieName(reached));
      if (secret && isOwn(request, reached, options.publicUrl)) {
        request.headers.authorization = `Bearer ${secret}`;
      }
    }
    return next(request, response);
  };
}

/** Whether the server's own page sent the request. */
function isOwn(request: Request, { authority }: Reached, publicUrl: string | undefined): boolean {
  if (request.method !== "POST") return false;
  if (!/^application\/(proto|json|connect\+|grpc-web)/.test(request.headers["content-type"] ?? ""))
    return false;
  const site = request.headers["sec-fetch-site"];
  if (site !== undefined) return site === "same-origin";
  const { origin } = request.headers;
  if (origin === undefined) return true;
  if (!URL.canParse(origin)) return false;
  return (
    new URL(origin).host === authority || new URL(origin).origin === (publicUrl && new URL(publicUrl).origin)
  );
}
