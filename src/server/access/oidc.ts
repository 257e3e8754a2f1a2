/**
 * Sign-in with an OpenID Connect provider: `/auth/oidc/start` redirects a browser to the provider,
 * `/auth/oidc/callback` takes it back. Authorization code with PKCE, state and nonce. A visit is a
 * code of Pinion (store/people/credentials/sign-in-codes.ts). The provider carries the code as
 * `state` and the browser carries its digest as a cookie, so that no other browser can finish the
 * visit. A code works once, for 10 minutes, on any replica.
 */
import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";
import * as client from "openid-client";
import type { OidcConfig } from "../../config.ts";
import { Refusal } from "../../errors.ts";
import type { OidcData } from "../../store/people/credentials/sign-in-codes.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Handler } from "../http/port/requests.ts";
import { type Reached, reachedBy, readCookie, signInCookie } from "./cookies.ts";
import { outgoingFetch } from "./oidc-fetch.ts";
import { peerAddressOf, userAgentOf } from "./peer.ts";

const visitMs = 10 * 60_000;
const placeCharactersMax = 500;
/** Milliseconds until a provider that did not answer is asked again. */
const discoverAgainMs = 5_000;

/** The person confirmed by the provider. */
export type Person = {
  issuer: string;
  subject: string;
  email: string | undefined;
  name: string;
  groups: string[];
};

/** The reason, for the sign-in page, why a person is not admitted. */
export type TurnedDown = "role" | "member" | "email";

export type OidcDoor = {
  begin(visit: { address: string; data: OidcData; expiresInMs: number }): Promise<string>;
  /** Consumes a visit; undefined if the visit is unknown, used or expired. */
  end(code: string): Promise<OidcData | undefined>;
  /** A browser's secret for the person, or why not. */
  admit(
    person: Person,
    from: { address: string; userAgent: string },
  ): Promise<{ secret: string; lifeMs: number } | TurnedDown>;
};

type Request = Parameters<Handler>[0];

type OidcOptions = { config: OidcConfig; door: OidcDoor; trustedProxies: number; log: Logger };

type Provider = () => Promise<client.Configuration>;

/** A browser at one of the two paths. */
type Arrival = { request: Request; response: ServerResponse; url: URL; reached: Reached };

export function withOidc(next: Handler, options: OidcOptions): Handler {
  const { config, log } = options;
  const provider = keepProvider(config);
  return async (request, response) => {
    const path = request.url?.split("?", 1)[0];
    const handle = path === "/auth/oidc/start" ? start : path === "/auth/oidc/callback" ? finish : undefined;
    if (!handle || request.method !== "GET") return next(request, response);
    const arrival: Arrival = {
      request,
      response: response as ServerResponse,
      url: new URL(request.url ?? "/", "http://pinion"),
      reached: reachedBy(request, config.publicUrl),
    };
    try {
      await handle(options, provider, arrival);
    } catch (error) {
      // The provider's message may contain a code or a token; the error's name and code do not.
      const { name, code } = error as Error & { code?: string };
      log.warn({ err: { name, code } }, "a sign-in with the provider failed");
      const why = error instanceof Refusal && error.reason === "resource_exhausted" ? "expired" : "provider";
      turnAway(config, arrival, { refused: why });
    }
  };
}

const baseOf = (config: OidcConfig): string => config.publicUrl.replace(/\/$/, "");
const redirectUriOf = (config: OidcConfig): string => `${baseOf(config)}/auth/oidc/callback`;

/** The provider's metadata, read at the first sign-in and kept. */
function keepProvider(config: OidcConfig): Provider {
  let discovery: Promise<client.Configuration> | undefined;
  return () => {
    discovery ??= client
      .discovery(new URL(config.issuer), config.clientId, config.clientSecret, undefined, {
        [client.customFetch]: outgoingFetch as client.CustomFetch,
        // A provider on the local machine, for trials; any other provider without TLS is the
        // operator's decision.
        execute: config.issuer.startsWith("http://") ? [client.allowInsecureRequests] : [],
      })
      .catch((error) => {
        setTimeout(() => {
          discovery = undefined;
        }, discoverAgainMs).unref();
        throw error;
      });
    return discovery;
  };
}

/** Sends the browser to the provider. */
async function start(
  options: OidcOptions,
  provider: Provider,
  { request, response, url, reached }: Arrival,
): Promise<void> {
  const { config, door } = options;
  const found = await provider();
  const verifier = client.randomPKCECodeVerifier();
  const nonce = client.randomNonce();
  const place = (url.searchParams.get("to") ?? "").slice(0, placeCharactersMax);
  const state = await door.begin({
    address: addressOf(options, request),
    data: { verifier, nonce, place },
    expiresInMs: visitMs,
  });
  const to = client.buildAuthorizationUrl(found, {
    redirect_uri: redirectUriOf(config),
    scope: config.scopes,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state,
    nonce,
  });
  redirect(response, to.href, visitCookie(reached, digest(state), visitMs));
}

/** Takes the browser back, and signs its person in. */
async function finish(options: OidcOptions, provider: Provider, arrival: Arrival): Promise<void> {
  const { config, door } = options;
  const { request, response, url, reached } = arrival;
  const state = url.searchParams.get("state") ?? "";
  const isSameBrowser = state !== "" && readCookie(request, visitName(reached)) === digest(state);
  const visit = isSameBrowser ? await door.end(state) : undefined;
  if (!visit) return turnAway(config, arrival, { refused: "expired" });
  const to = visit.place;
  const granted = await client.authorizationCodeGrant(
    await provider(),
    new URL(`${redirectUriOf(config)}${url.search}`),
    { pkceCodeVerifier: visit.verifier, expectedNonce: visit.nonce, expectedState: state },
  );
  const claims = granted.claims();
  if (!claims) return turnAway(config, arrival, { refused: "provider", to });
  const told = await moreClaims(await provider(), granted, claims);
  const admitted = await door.admit(personOf(config, claims.iss, claims.sub, told), {
    address: addressOf(options, request),
    userAgent: userAgentOf(request.headers["user-agent"]),
  });
  if (typeof admitted === "string") return turnAway(config, arrival, { refused: admitted, to });
  redirect(response, `${baseOf(config)}/#${to.startsWith("/") ? to : "/home"}`, [
    visitCookie(reached, "", 0),
    signInCookie(reached, admitted.secret, admitted.lifeMs),
  ]);
}

/** Back to the page for signing in, with the reason; `to`: the place the person wanted. */
function turnAway(
  config: OidcConfig,
  { response, reached }: Arrival,
  { refused, to }: { refused: string; to?: string },
): void {
  const query = new URLSearchParams({ refused, ...(to ? { to } : {}) });
  redirect(response, `${baseOf(config)}/#/sign-in?${query}`, visitCookie(reached, "", 0));
}

function addressOf({ trustedProxies }: OidcOptions, request: Request): string {
  return peerAddressOf(request.headers, request.socket?.remoteAddress, trustedProxies);
}

/** Claims of the id token and, if the provider has a UserInfo endpoint, of its answer. */
async function moreClaims(
  provider: client.Configuration,
  granted: client.TokenEndpointResponse,
  claims: client.IDToken,
): Promise<Record<string, unknown>> {
  if (!provider.serverMetadata().userinfo_endpoint) return claims;
  return { ...claims, ...(await client.fetchUserInfo(provider, granted.access_token, claims.sub)) };
}

function personOf(
  config: OidcConfig,
  issuer: string,
  subject: string,
  told: Record<string, unknown>,
): Person {
  const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : undefined);
  const email = told.email_verified === true || told.email_verified === "true" ? text(told.email) : undefined;
  const groups = told[config.roleClaim];
  return {
    issuer,
    subject,
    email,
    name: text(told.name) ?? text(told.preferred_username) ?? email ?? subject,
    groups: (Array.isArray(groups) ? groups : [groups]).filter((value) => typeof value === "string"),
  };
}

/**
 * The browser holds a digest: a reader of the cookie learns nothing that the provider would accept.
 */
function digest(state: string): string {
  return createHash("sha256").update(state).digest("base64url");
}

function visitName({ isSecure }: Reached): string {
  return `${isSecure ? "__Host-" : ""}pinion_visit`;
}

/** Lax: the browser comes back from another site. */
function visitCookie(reached: Reached, value: string, lifeMs: number): string {
  const secure = reached.isSecure ? "; Secure" : "";
  return `${visitName(reached)}=${value}; Path=/; HttpOnly; SameSite=Lax${secure}; Max-Age=${Math.floor(lifeMs / 1_000)}`;
}

function redirect(response: ServerResponse, to: string, cookies: string | string[]): void {
  response.writeHead(303, {
    location: to,
    "set-cookie": cookies,
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-length": "0",
  });
  response.end();
}
