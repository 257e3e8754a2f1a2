/**
 * A Slack on this machine, for the real adapter: the Web API's methods that a bot uses, and events
 * signed as Slack signs them.
 */
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

export type SlackMessage = { channel: string; ts: string; text: string; threadTs: string; blocks: string };

export type TestSlack = AsyncDisposable & {
  url: string;
  token: string;
  signingSecret: string;
  /** Posts an event to a platform's webhook; resolves to the answer's status. */
  event(webhook: string, event: Record<string, unknown>, headers?: Record<string, string>): Promise<number>;
  /** A person presses a button. */
  press(webhook: string, message: SlackMessage, value: string, user: string): Promise<number>;
  /** A number for messages, as Slack's. */
  ts(): string;
  shown(channel: string): SlackMessage[];
};

const token = "xoxb-test";
const signingSecret = "a-signing-secret";

export async function startSlack(): Promise<TestSlack> {
  const messages = new Map<string, SlackMessage>();
  let lastTs = 1_700_000_000;
  let events = 0;
  const ts = () => `${++lastTs}.000100`;

  const server = createServer(async (request, response) => {
    const { given, body } = await readCall(request);
    const answer =
      given === token
        ? answerOf({ messages, ts }, request.url!.replace(/^\/api\//, ""), body)
        : { ok: false, error: "invalid_auth" };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(answer));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/api`,
    token,
    signingSecret,
    ts,
    event: (webhook, event, headers) =>
      send(
        webhook,
        JSON.stringify({ type: "event_callback", team_id: "T1", event_id: `Ev${++events}`, event }),
        "application/json",
        headers,
      ),
    press: (webhook, message, value, user) =>
      send(webhook, pressOf(message, { value, user, at: ts() }), "application/x-www-form-urlencoded"),
    shown: (channel) => [...messages.values()].filter((message) => message.channel === channel),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** The answer to a bot's call of a method. */
function answerOf(
  { messages, ts }: { messages: Map<string, SlackMessage>; ts: () => string },
  method: string,
  body: Record<string, string>,
): Record<string, unknown> {
  switch (method) {
    case "auth.test":
      return { ok: true, user_id: "UBOT", user: "pinion", bot_id: "BBOT", team_id: "T1" };
    case "users.info":
      return {
        ok: true,
        user: { id: body.user, name: "ada", real_name: "Ada", profile: { display_name: "Ada" } },
      };
    case "chat.postMessage":
    case "chat.update": {
      const key = body.ts ?? ts();
      if (method === "chat.update" && !messages.has(key)) return { ok: false, error: "message_not_found" };
      const text = body.markdown_text ?? body.text ?? "";
      const threadTs = messages.get(key)?.threadTs ?? body.thread_ts ?? "";
      messages.set(key, { channel: body.channel!, ts: key, text, threadTs, blocks: body.blocks ?? "" });
      return { ok: true, channel: body.channel, ts: key, message: { ts: key, text } };
    }
    default:
      return { ok: true };
  }
}

/** The token and the fields of a bot's call, in JSON or as a form. */
async function readCall(request: IncomingMessage): Promise<{ given?: string; body: Record<string, string> }> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  const isJson = (request.headers["content-type"] ?? "").includes("json");
  const body = (isJson ? JSON.parse(text || "{}") : Object.fromEntries(new URLSearchParams(text))) as Record<
    string,
    string
  >;
  const given = request.headers.authorization?.replace("Bearer ", "") ?? body.token;
  return { ...(given === undefined ? {} : { given }), body };
}

/** The form of a pressed button. */
function pressOf(message: SlackMessage, { value, user, at }: { value: string; user: string; at: string }) {
  const payload = JSON.stringify({
    type: "block_actions",
    team: { id: "T1" },
    user: { id: user, username: "ada", name: "Ada" },
    channel: { id: message.channel, name: "dm" },
    container: { type: "message", message_ts: message.ts, channel_id: message.channel },
    message: { ts: message.ts, thread_ts: message.threadTs || message.ts, text: message.text },
    actions: [{ type: "button", action_id: "p0", value, block_id: "b", action_ts: at }],
    trigger_id: "1",
    response_url: "",
  });
  return new URLSearchParams({ payload }).toString();
}

/** Posts to a webhook with Slack's signature; resolves to the answer's status. */
async function send(webhook: string, body: string, type: string, more: Record<string, string> = {}) {
  const at = String(Math.floor(Date.now() / 1_000));
  const signature = `v0=${createHmac("sha256", signingSecret).update(`v0:${at}:${body}`).digest("hex")}`;
  const answer = await fetch(webhook, {
    method: "POST",
    body,
    headers: {
      ...{ "content-type": type, "x-slack-request-timestamp": at, "x-slack-signature": signature },
      ...more,
    },
  });
  await answer.arrayBuffer();
  return answer.status;
}
