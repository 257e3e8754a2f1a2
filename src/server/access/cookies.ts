/**
 * The cookie of a browser that is signed in, as the credential of its calls.
 *
 * A browser sends a cookie whoever asks it to, so it counts only for what the page itself sends: SameSite=Strict keeps it
 * out of other sites' requests, and here a call counts only if the browser says that it comes from the same origin
 * (Sec-Fetch-Site; Origin where a browser has none) and if it is a POST of a type that no form can send. The secret becomes
 * the call's `authorization`, and is judged by the guard like every token.
 */
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { authorityOf } from "../http/authority.ts";
import type { Handler } from "../http/port.ts";

type Request = IncomingMessage | Http2ServerRequest;

/** By what name the browser reached the server, and whether nobody could listen on the way. */
export type Reached = { authority: string; isSecure: boolean };

export function reachedBy(request: Request, publicUrl: string | undefined): Reached {
  const authority = authorityOf(request) ?? "";
  const isEncrypted = "encrypted" in request.socket && request.socket.encrypted === true;
  // A proxy in front that speaks TLS passes on the name by which the browser called it.
  const own = publicUrl ? new URL(publicUrl) : undefined;
  return { authority, isSecure: isEncrypted || (own?.protocol === "https:" && own.host === authority) };
}

/** Cookies know no ports: two servers of one machine, on two ports, would overwrite each other's. */
export function cookieName({ authority, isSecure }: Reached): string {
  const port = /:(\d+)$/.exec(authority)?.[1];
  return `${isSecure ? "__Host-" : ""}pinion${port ? `_${port}` : ""}`;
}

/** What makes a browser keep the secret for so long, where no script reads it. */
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

/** Gives a call of the page the credential of its cookie. A call that brings a credential of its own keeps that. */
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

/** Whether the page of this server sent it. */
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
