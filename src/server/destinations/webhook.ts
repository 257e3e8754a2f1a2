/**
 * Webhooks by Standard Webhooks (standardwebhooks.com): a signed POST of JSON, with the same id for
 * all tries.
 */
import { Webhook } from "standardwebhooks";
import { build } from "../../build.ts";
import type { Reach } from "../../network/addresses.ts";
import { post } from "../../network/outgoing.ts";
import type { Sent } from "../../scheduler/deliverer.ts";
import { sentOf, troubleOf } from "./answer.ts";
import type { Message } from "./message.ts";

const redirectsMax = 3;

export async function sendWebhook(
  message: Message,
  options: { url: string; secrets: readonly string[]; reach: Reach; signal: AbortSignal },
): Promise<Sent> {
  const body = JSON.stringify(message.payload);
  const now = new Date();
  const signatures = options.secrets.map((secret) => new Webhook(secret).sign(message.id, now, body));
  try {
    const answer = await post(new URL(options.url), {
      headers: {
        "content-type": "application/json",
        "user-agent": `Pinion/${build.version}`,
        "webhook-id": message.id,
        "webhook-timestamp": String(Math.floor(now.getTime() / 1000)),
        "webhook-signature": signatures.join(" "),
      },
      body,
      reach: options.reach,
      signal: options.signal,
      redirectsMax,
    });
    return sentOf(answer);
  } catch (error) {
    return troubleOf(error);
  }
}

/** Whether a text is a secret in the format of Standard Webhooks. */
export function isSigningSecret(text: string): boolean {
  const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text)?.[1];
  const bytes = encoded === undefined ? 0 : Buffer.from(encoded, "base64").length;
  return bytes >= 24 && bytes <= 64;
}
