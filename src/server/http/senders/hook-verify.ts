/**
 * Verifies the sender of a delivery, by the convention of its hook's kind. Secrets are compared in
 * constant time.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { verify as verifyGitHub } from "@octokit/webhooks-methods";
import { Webhook } from "standardwebhooks";
import type { HookKind } from "../../../store/work/watchers/hooks.ts";

/** Maximum age of a signature in seconds, as advised by Slack and by Standard Webhooks. */
const toleranceSeconds = 300;
/** The form of a delivery id chosen by a sender. */
const keyPattern = /^[!-~]{1,200}$/;

export type Delivery = {
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** The last part of the address; empty: there is none. */
  urlSecret: string;
};

/**
 * The sender's id of the delivery and its name of the event; for an unverified delivery the reason.
 */
export type Verified = { key: string | null; event: string } | { problem: string };

/** Tries each secret: for a while after a rotation there are two. */
export async function verify(
  kind: HookKind,
  secrets: readonly string[],
  delivery: Delivery,
): Promise<Verified> {
  let problem = "the secret does not match";
  for (const secret of secrets) {
    const verified = await verifiers[kind](secret, delivery);
    if (!("problem" in verified)) {
      const { key, event } = verified;
      if (key !== null && !keyPattern.test(key)) return { problem: "its delivery id is no id" };
      return { key, event: event.slice(0, 100) };
    }
    problem = verified.problem;
  }
  return { problem };
}

type Verifier = (secret: string, delivery: Delivery) => Verified | Promise<Verified>;

const verifiers: Record<HookKind, Verifier> = {
  standard(secret, { headers, body }) {
    try {
      new Webhook(secret).verify(body, headers as Record<string, string>, { jsonParse: false });
    } catch (error) {
      return { problem: error instanceof Error ? error.message : "it is not signed" };
    }
    return { key: headerOf(headers, "webhook-id"), event: typeOf(body) };
  },
  async github(secret, { headers, body }) {
    const signature = headerOf(headers, "x-hub-signature-256");
    if (!signature) return { problem: "x-hub-signature-256 is missing" };
    const text = body.toString("utf8");
    // The signature covers bytes, and the check uses text: a body that is not UTF-8 cannot match
    // its signature.
    if (text === "" || !(await verifyGitHub(secret, text, signature).catch(() => false))) {
      return { problem: "x-hub-signature-256 does not match" };
    }
    const key = headerOf(headers, "x-github-delivery");
    if (!key) return { problem: "x-github-delivery is missing" };
    return { key, event: headerOf(headers, "x-github-event") ?? "" };
  },
  gitlab(secret, { headers }) {
    if (!isEqual(headerOf(headers, "x-gitlab-token"), secret))
      return { problem: "x-gitlab-token does not match" };
    const key = headerOf(headers, "idempotency-key") ?? headerOf(headers, "x-gitlab-event-uuid");
    return { key, event: headerOf(headers, "x-gitlab-event") ?? "" };
  },
  slack(secret, { headers, body }) {
    const signature = headerOf(headers, "x-slack-signature");
    const at = headerOf(headers, "x-slack-request-timestamp");
    if (!signature || !at || !/^\d{1,12}$/.test(at)) return { problem: "x-slack-signature is missing" };
    if (Math.abs(Date.now() / 1_000 - Number(at)) > toleranceSeconds) {
      return { problem: "x-slack-request-timestamp is more than 5 minutes away" };
    }
    const expected = `v0=${createHmac("sha256", secret).update(`v0:${at}:`).update(body).digest("hex")}`;
    if (!isEqual(signature, expected)) return { problem: "x-slack-signature does not match" };
    return { key: slackKey(body, signature), event: typeOf(body) };
  },
  bearer(secret, { headers }) {
    const given = /^Bearer +(\S+) *$/i.exec(headerOf(headers, "authorization") ?? "")?.[1] ?? null;
    if (!isEqual(given, secret)) return { problem: "authorization: Bearer … does not match" };
    return { key: chosenKey(headers), event: "" };
  },
  secret_url(secret, { headers, urlSecret }) {
    if (!isEqual(urlSecret, secret)) return { problem: "the secret in the address does not match" };
    return { key: chosenKey(headers), event: "" };
  },
};

function chosenKey(headers: IncomingHttpHeaders): string | null {
  return headerOf(headers, "idempotency-key") ?? headerOf(headers, "webhook-id");
}

function headerOf(headers: IncomingHttpHeaders, name: string): string | null {
  const value = headers[name];
  return typeof value === "string" && value !== "" ? value : null;
}

/**
 * Compares digests of equal length, so that the time taken does not reveal the length of the
 * secret.
 */
function isEqual(given: string | null, expected: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given ?? ""), digest(expected));
}

/** The event's name in a JSON body; empty if the body has none. */
function typeOf(body: Buffer): string {
  const type = fieldOf(body, "type");
  return typeof type === "string" ? type : "";
}

/**
 * An event of Slack has an id that its retries keep; any other request is identified by its
 * signature.
 */
function slackKey(body: Buffer, signature: string): string {
  const id = fieldOf(body, "event_id");
  return typeof id === "string" && keyPattern.test(id) ? id : signature;
}

function fieldOf(body: Buffer, name: string): unknown {
  try {
    const parsed: unknown = JSON.parse(body.toString("utf8"));
    return typeof parsed === "object" && parsed !== null
      ? (parsed as Record<string, unknown>)[name]
      : undefined;
  } catch {
    return undefined;
  }
}
