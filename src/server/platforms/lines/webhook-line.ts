/**
 * A line to a program of the org: messages come as signed POSTs to our port, and replies go as
 * signed POSTs to the program's URL, both by Standard Webhooks (standardwebhooks.com).
 */
import { Webhook } from "standardwebhooks";
import { z } from "zod";
import { build } from "../../../build.ts";
import type { Reach } from "../../../network/addresses.ts";
import { post } from "../../../network/outgoing.ts";
import { newId } from "../../../values/ids.ts";
import { wordsOf } from "../../destinations/answer.ts";
import { isSigningSecret } from "../../destinations/webhook.ts";
import { type Ear, type Line, PlatformRefused, type Said } from "./line.ts";

const textMax = 100_000;
const redirectsMax = 3;
const sendMs = 15_000;

const messageRule = z.object({
  type: z.literal("message").default("message"),
  id: z.string().min(1).max(200),
  user: z.string().min(1).max(200),
  user_name: z.string().max(200).default(""),
  chat: z.string().max(200).default(""),
  is_direct: z.boolean().default(true),
  text: z.string().min(1).max(1_000_000),
});
const pressRule = z.object({
  type: z.literal("button"),
  user: z.string().min(1).max(200),
  chat: z.string().max(200).default(""),
  value: z.string().min(1).max(200),
});
const bodyRule = z.union([pressRule, messageRule]);

type Named = { orgId: string; stableId: string };

export function openWebhookLine(options: {
  /** The program's URL and the secret of both directions, as the platform's secrets say. */
  url: string | undefined;
  signingSecret: string | undefined;
  reach: Reach;
  ear: Ear;
  /** What the messages name: the platform and its org. */
  platform: Named;
}): Line {
  const { ear, reach, platform, signingSecret = "" } = options;
  if (!isSigningSecret(signingSecret)) {
    throw new PlatformRefused(
      'secrets.signing_secret: not a secret of Standard Webhooks: "whsec_" and 24 to 64 bytes in base64',
    );
  }
  const url = URL.parse(options.url ?? "");
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new PlatformRefused("secrets.url: not an http or https URL");
  }
  const webhook = new Webhook(signingSecret);
  return {
    textMax,
    editEveryMs: 0,
    async post(threadId, said, id) {
      const sentAt = new Date();
      const body = bodyOf(platform, { threadId, said, id, sentAt });
      await send(url, { webhook, reach }, { id, sentAt, body });
      return id;
    },
    threadOf: async (chat) => chat,
    takeWebhook: (request) => take(webhook, ear, request),
    async close() {},
  };
}

function bodyOf(
  { orgId, stableId }: Named,
  { threadId, said, id, sentAt }: { threadId: string; said: Said; id: string; sentAt: Date },
): string {
  return JSON.stringify({
    type: said.buttons ? "question" : "reply",
    timestamp: sentAt.toISOString(),
    data: {
      id,
      ...{ platform_id: stableId, org_id: orgId, chat: threadId, text: said.text },
      ...(said.buttons ? { buttons: said.buttons.map(({ label, value }) => ({ label, value })) } : {}),
    },
  });
}

/** Posts a signed message; throws the words of the failure. */
async function send(
  url: URL,
  { webhook, reach }: { webhook: Webhook; reach: Reach },
  { id, sentAt, body }: { id: string; sentAt: Date; body: string },
): Promise<void> {
  const answer = await post(url, {
    headers: {
      "content-type": "application/json",
      "user-agent": `Pinion/${build.version}`,
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(sentAt.getTime() / 1_000)),
      "webhook-signature": webhook.sign(id, sentAt, body),
    },
    body,
    reach,
    signal: AbortSignal.timeout(sendMs),
    redirectsMax,
  }).catch((error: unknown) => {
    throw new Error(wordsOf(error));
  });
  if (answer.status < 200 || answer.status > 299) throw new Error(`the URL answers ${answer.status}`);
}

/** Verifies a request of the program, and gives its message or press to the ear. */
async function take(webhook: Webhook, ear: Ear, request: Request): Promise<Response> {
  const text = await request.text();
  try {
    webhook.verify(text, Object.fromEntries(request.headers));
  } catch {
    return Response.json({ error: "the signature is not this platform's" }, { status: 401 });
  }
  const parsed = bodyRule.safeParse(jsonOf(text));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const where = issue?.path.join(".");
    const error = `not a message: ${where ? `${where}: ` : ""}${issue?.message ?? "no JSON"}`;
    return Response.json({ error }, { status: 400 });
  }
  const said = parsed.data;
  const chat = said.chat || said.user;
  if (said.type === "button") {
    const place = { threadId: chat, chatId: chat, isDirect: chat === said.user };
    await ear.pressed({ ...place, senderId: said.user, value: said.value });
  } else {
    const sender = { senderId: said.user, senderName: said.user_name || said.user };
    const place = { threadId: chat, chatId: chat, isDirect: said.is_direct };
    await ear.heard({ ...place, ...sender, messageId: said.id, text: said.text });
  }
  return Response.json({ id: newId() }, { status: 202 });
}

/** Undefined: no JSON. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
