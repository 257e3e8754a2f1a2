/**
 * A line to a program of the org: messages come as signed POSTs to our port, and replies go as
 * signed POSTs to the program's URL, both by Standard Webhooks (standardwebhooks.com).
 */
import { Webhook } from "standardwebhooks";
import { z } from "zod";
import type { Reach } from "../../../addresses.ts";
import { newId } from "../../../ids.ts";
import { post } from "../../../outgoing.ts";
import { version } from "../../../version.ts";
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

export function openWebhookLine(options: {
  url: string;
  signingSecret: string;
  reach: Reach;
  ear: Ear;
  /** What the messages name: the platform and its org. */
  platform: { orgId: string; stableId: string };
}): Line {
  const { ear, reach, platform } = options;
  if (!isSigningSecret(options.signingSecret)) {
    throw new PlatformRefused(
      'secrets.signing_secret: not a secret of Standard Webhooks: "whsec_" and 24 to 64 bytes in base64',
    );
  }
  const url = URL.parse(options.url);
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new PlatformRefused("secrets.url: not an http or https URL");
  }
  const webhook = new Webhook(options.signingSecret);

  async function send(type: "reply" | "question", threadId: string, said: Said, id: string): Promise<string> {
    const now = new Date();
    const body = JSON.stringify({
      type,
      timestamp: now.toISOString(),
      data: {
        id,
        ...{ platform_id: platform.stableId, org_id: platform.orgId, chat: threadId, text: said.text },
        ...(said.buttons ? { buttons: said.buttons.map(({ label, value }) => ({ label, value })) } : {}),
      },
    });
    const answer = await post(url!, {
      headers: {
        "content-type": "application/json",
        "user-agent": `Pinion/${version()}`,
        "webhook-id": id,
        "webhook-timestamp": String(Math.floor(now.getTime() / 1_000)),
        "webhook-signature": webhook.sign(id, now, body),
      },
      body,
      reach,
      signal: AbortSignal.timeout(sendMs),
      redirectsMax,
    }).catch((error: unknown) => {
      throw new Error(wordsOf(error));
    });
    if (answer.status < 200 || answer.status > 299) throw new Error(`the URL answers ${answer.status}`);
    return id;
  }

  return {
    textMax,
    editEveryMs: 0,
    post: (threadId, said, id) => send(said.buttons ? "question" : "reply", threadId, said, id),
    threadOf: async (chat) => chat,
    async takeWebhook(request) {
      const text = await request.text();
      const headers = Object.fromEntries(request.headers);
      try {
        webhook.verify(text, headers);
      } catch {
        return Response.json({ error: "the signature is not this platform's" }, { status: 401 });
      }
      let json: unknown;
      try {
        json = JSON.parse(text);
      } catch {
        json = undefined;
      }
      const parsed = bodyRule.safeParse(json);
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
    },
    async close() {},
  };
}
