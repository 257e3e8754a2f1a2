import { sign } from "node:crypto";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { Reach } from "../../../network/addresses.ts";
import { excerpt } from "../../../values/excerpt.ts";
import { fetchWithin } from "./confined.ts";
import { PlatformRefused } from "./line.ts";

export const googleTokens = "https://oauth2.googleapis.com/token";

type Answered = { status: number; body: Record<string, unknown> };

export async function ask(
  reach: Reach,
  signal: AbortSignal,
  url: string,
  { body, form, headers }: { body?: object; form?: URLSearchParams; headers?: Record<string, string> },
): Promise<Answered> {
  const answer = await fetchWithin(reach, url, {
    signal,
    ...(form ? { method: "POST", body: form } : {}),
    ...(body ? { method: "POST", body: JSON.stringify(body) } : {}),
    headers: { ...(body ? { "content-type": "application/json" } : {}), ...headers },
  });
  const text = await answer.text();
  try {
    return { status: answer.status, body: JSON.parse(text) as Record<string, unknown> };
  } catch {
    return { status: answer.status, body: {} };
  }
}

/** A setting that the kind of platform requires; without the setting no platform is stored. */
export function required(settings: Readonly<Record<string, string>>, name: string): string {
  const value = settings[name];
  if (value === undefined) throw new PlatformRefused(`the setting ${name} is missing`);
  return value;
}

/** Maximum characters of a platform's words. */
const wordsMax = 200;

/**
 * Passes an answer that is fine. A refusal is a PlatformRefused with the platform's words; trouble
 * of the platform is a plain error, since a later try may succeed.
 */
export function said(platform: string, { status, body }: Answered, field: string): void {
  const isRefused = body.ok === false || body[field] !== undefined || status >= 400;
  if (status < 300 && !isRefused) return;
  const found = body[field];
  const words =
    typeof found === "string" ? found : found === undefined ? "" : excerpt(JSON.stringify(found), wordsMax);
  const text = `${platform} answers ${status}${words ? `: ${excerpt(words, wordsMax)}` : ""}`;
  if (status === 429 || status >= 500) throw new Error(text);
  if (status === 404 && body[field] === undefined) {
    throw new PlatformRefused(`${text}; look at api_url, it is no address of ${platform}'s API`);
  }
  throw new PlatformRefused(text);
}

/** A service account's key. */
export function credentialsOf(text: string): { client_email: string; private_key: string } {
  try {
    const { client_email: email, private_key: key, ...rest } = JSON.parse(text) as Record<string, unknown>;
    if (typeof email === "string" && typeof key === "string") {
      return { ...rest, client_email: email, private_key: key };
    }
  } catch {
    // Told below.
  }
  throw new PlatformRefused(
    "secrets.credentials: not the JSON key of a service account, with client_email and private_key",
  );
}

/** A request for a token, signed with the key of a service account (RFC 7523). */
export function assertionOf({
  client_email: email,
  private_key: key,
}: {
  client_email: string;
  private_key: string;
}) {
  const now = Math.floor(Date.now() / 1_000);
  const claims = {
    ...{ iss: email, aud: googleTokens, iat: now, exp: now + 300 },
    scope: "https://www.googleapis.com/auth/chat.bot",
  };
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const text = `${encode({ alg: "RS256", typ: "JWT" })}.${encode(claims)}`;
  try {
    return `${text}.${sign("RSA-SHA256", Buffer.from(text), key).toString("base64url")}`;
  } catch {
    throw new PlatformRefused("secrets.credentials: private_key is no key in PEM");
  }
}

export function agentOf(url: string, { lookup }: Reach): HttpAgent {
  const isSecure = new URL(url).protocol === "https:";
  const options = { lookup, keepAlive: true, maxSockets: 16 };
  return isSecure ? new HttpsAgent(options) : new HttpAgent(options);
}
