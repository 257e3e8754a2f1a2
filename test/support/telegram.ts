/**
 * A Telegram on this machine, for real adapters: telegram-test-api keeps the chats, and this server
 * in front adds the behaviour of the Bot API that it lacks: tokens that are refused, long polls,
 * updates that come again until confirmed, edited messages in answers, and calls held by a test.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";

const TelegramServer = createRequire(import.meta.url)(
  "telegram-test-api",
) as typeof import("telegram-test-api")["default"];

export type TelegramMessage = {
  chatId: string;
  messageId: number;
  text: string;
  buttons: { text: string; data: string }[];
};
type Update = { update_id: number } & Record<string, unknown>;
type Call = { method: string; token: string; body: Record<string, unknown> };

export type TestTelegram = AsyncDisposable & {
  url: string;
  /** Tokens that are accepted; all others are refused with 401. */
  token: string;
  /** A person writes to the bot; a chat below 0 is a group. Resolves to the message's id. */
  write(text: string, from?: { userId?: number; chatId?: number; isMention?: boolean }): number;
  /** A person presses the button with the label. */
  press(message: TelegramMessage, label: string, userId?: number): void;
  /** Sends all updates so far a second time, as after a lost confirmation. */
  repeatUpdates(): void;
  /** What the chat shows now, oldest first. */
  shown(chatId?: number): TelegramMessage[];
  /** The calls of bots, oldest first. */
  calls: Call[];
  /** The next call of the method waits until the returned function is called. */
  hold(method: string): { reached: Promise<void>; release(): void };
  /** Called for each call; a returned answer is given instead of Telegram's. */
  intercept: ((call: Call) => { status: number; body: object } | undefined) | undefined;
};

const pollMs = 2_000;

/** `isOpen`: every token is accepted. */
export async function startTelegram({ isOpen = false } = {}): Promise<TestTelegram> {
  const chats = new TelegramServer({ storeTimeout: 3_600 });
  const token = "123456:test-token";
  const calls: Call[] = [];
  const updates: Update[] = [];
  const confirmed = new Set<number>();
  const holds = new Map<string, { reached(): void; released: Promise<void> }>();
  let wake = () => {};
  let lastUpdate = 0;
  let lastMessage = 1_000;
  const posted = new Map<string, TelegramMessage>();

  function tell(update: Record<string, unknown>): void {
    updates.push({ update_id: ++lastUpdate, ...update });
    wake();
  }

  const person = (userId: number) => ({
    id: userId,
    is_bot: false,
    first_name: "Ada",
    username: `ada${userId}`,
  });
  const chatOf = (chatId: number) =>
    chatId < 0
      ? { id: chatId, type: "supergroup", title: "Team" }
      : { id: chatId, type: "private", first_name: "Ada" };

  /** A rich message is Markdown as the bot wrote it. */
  function textOf(body: Record<string, unknown>): string {
    const rich = body.rich_message as { markdown?: string } | undefined;
    return String(rich?.markdown ?? body.text ?? "");
  }

  async function answerOf(call: Call): Promise<unknown> {
    const { method, body } = call;
    switch (method) {
      case "getMe":
        return { id: 666, is_bot: true, first_name: "Test", username: "TestNameBot" };
      case "getWebhookInfo":
        return { url: "", has_custom_certificate: false, pending_update_count: 0 };
      case "getUpdates": {
        const offset = Number(body.offset ?? 0);
        for (const { update_id: id } of updates) if (id < offset) confirmed.add(id);
        const left = () => updates.filter(({ update_id: id }) => !confirmed.has(id) && id >= offset);
        const until = Date.now() + Math.min(Number(body.timeout ?? 0) * 1_000, pollMs);
        while (left().length === 0 && Date.now() < until) {
          await new Promise<void>((resolve) => {
            const before = wake;
            wake = () => {
              before();
              resolve();
            };
            setTimeout(resolve, until - Date.now());
          });
        }
        return left().slice(0, Number(body.limit ?? 100));
      }
      case "sendRichMessage":
      case "sendMessage": {
        const message = chats.addBotMessage(
          { ...body, text: textOf(body) } as never,
          call.token,
        ) as unknown as { message_id: number };
        return kept(Number(body.chat_id), message.message_id, body);
      }
      case "editMessageText":
        chats.editMessageText({ ...body, text: textOf(body) } as never);
        if (!posted.has(`${body.chat_id} ${body.message_id}`)) return undefined;
        return kept(Number(body.chat_id), Number(body.message_id), body);
      case "sendChatAction":
      case "answerCallbackQuery":
      case "setWebhook":
      case "deleteWebhook":
        return true;
      default:
        // Methods that this Bot API is too old for.
        return "unknown";
    }
  }

  function kept(chatId: number, messageId: number, body: Record<string, unknown>) {
    const markup = body.reply_markup as
      | { inline_keyboard?: { text: string; callback_data?: string }[][] }
      | undefined;
    const buttons = (markup?.inline_keyboard ?? [])
      .flat()
      .map(({ text, callback_data: data = "" }) => ({ text, data }));
    posted.set(`${chatId} ${messageId}`, {
      chatId: String(chatId),
      messageId,
      text: textOf(body),
      buttons,
    });
    return {
      message_id: messageId,
      date: Math.floor(Date.now() / 1_000),
      chat: chatOf(chatId),
      from: { id: 666, is_bot: true, first_name: "Test", username: "TestNameBot" },
      text: textOf(body),
    };
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const [, given = "", method = ""] = /^\/bot([^/]+)\/(\w+)$/.exec(request.url ?? "") ?? [];
    const text = Buffer.concat(chunks).toString();
    const call = { method, token: decodeURIComponent(given), body: text ? JSON.parse(text) : {} };
    const send = (status: number, body: object) => {
      response.statusCode = status;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(body));
    };
    if (call.token !== token && !isOpen)
      return send(401, { ok: false, error_code: 401, description: "Unauthorized" });
    calls.push(call);
    const held = holds.get(method);
    if (held) {
      holds.delete(method);
      held.reached();
      await held.released;
    }
    const instead = telegram.intercept?.(call);
    if (instead) return send(instead.status, instead.body);
    const result = await answerOf(call);
    if (result === "unknown") return send(404, { ok: false, error_code: 404, description: "Not Found" });
    if (result === undefined)
      return send(400, { ok: false, error_code: 400, description: "Bad Request: message to edit not found" });
    send(200, { ok: true, result });
  }

  const server = createServer((request, response) => {
    serve(request, response).catch(() => response.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  const telegram: TestTelegram = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token,
    calls,
    intercept: undefined,
    write(text, { userId = 7, chatId = userId, isMention = false } = {}) {
      const messageId = ++lastMessage;
      const said = isMention ? `@TestNameBot ${text}` : text;
      const entities = isMention
        ? [{ type: "mention", offset: 0, length: 12 }]
        : text.startsWith("/")
          ? [{ type: "bot_command", offset: 0, length: text.split(" ")[0]!.length }]
          : [];
      tell({
        message: {
          ...{ message_id: messageId, date: Math.floor(Date.now() / 1_000), text: said, entities },
          ...{ from: person(userId), chat: chatOf(chatId) },
        },
      });
      return messageId;
    },
    press(message, label, userId = 7) {
      const button = message.buttons.find(({ text }) => text === label);
      if (!button) throw new Error(`no button "${label}" in "${message.text}"`);
      const chat = chatOf(Number(message.chatId));
      tell({
        callback_query: {
          ...{ id: String(lastUpdate + 1), from: person(userId), data: button.data },
          message: { message_id: message.messageId, date: 1, chat, text: message.text },
        },
      });
    },
    repeatUpdates() {
      for (const { update_id: _, ...update } of [...updates]) tell(update);
    },
    shown: (chatId = 7) => [...posted.values()].filter((message) => message.chatId === String(chatId)),
    hold(method) {
      const reached = Promise.withResolvers<void>();
      const released = Promise.withResolvers<void>();
      holds.set(method, { reached: reached.resolve, released: released.promise });
      return { reached: reached.promise, release: released.resolve };
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return telegram;
}
