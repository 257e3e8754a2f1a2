/**
 * A Telegram on this machine, for real adapters: telegram-test-api keeps the chats, and this server
 * in front adds the behaviour of the Bot API that it lacks: tokens that are refused, long polls,
 * updates that come again until confirmed, edited messages in answers, and calls held by a test.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
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
  const token = "123456:test-token";
  const updates = new Updates();
  const chats = new Chats(updates);
  const holds = new Map<string, { reached(): void; released: Promise<void> }>();

  async function answer(call: Call): Promise<{ status: number; body: object }> {
    const held = holds.get(call.method);
    if (held) {
      holds.delete(call.method);
      held.reached();
      await held.released;
    }
    return telegram.intercept?.(call) ?? resultOf(await chats.answer(call));
  }

  const server = createServer((request, response) => {
    callOf(request)
      .then(async (call) => {
        if (call.token !== token && !isOpen) return refused(401, "Unauthorized");
        telegram.calls.push(call);
        return answer(call);
      })
      .then(({ status, body }) => {
        response.statusCode = status;
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify(body));
      })
      .catch(() => response.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  const telegram: TestTelegram = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token,
    calls: [],
    intercept: undefined,
    write: (text, from) => chats.write(text, from),
    press: (message, label, userId = 7) => chats.press(message, label, userId),
    repeatUpdates: () => updates.repeat(),
    shown: (chatId = 7) => chats.shown(chatId),
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

/** The call of a request to `/bot<token>/<method>`. */
async function callOf(request: IncomingMessage): Promise<Call> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const [, given = "", method = ""] = /^\/bot([^/]+)\/(\w+)$/.exec(request.url ?? "") ?? [];
  const text = Buffer.concat(chunks).toString();
  return { method, token: decodeURIComponent(given), body: text ? JSON.parse(text) : {} };
}

const refused = (status: number, description: string) => ({
  status,
  body: { ok: false, error_code: status, description },
});

/** The answer with the result of a method. */
function resultOf(result: unknown): { status: number; body: object } {
  if (result === unknownMethod) return refused(404, "Not Found");
  if (result === undefined) return refused(400, "Bad Request: message to edit not found");
  return { status: 200, body: { ok: true, result } };
}

/**
 * The updates for the bot. An update is given again until a poll with a later offset confirms it.
 */
class Updates {
  readonly #updates: Update[] = [];
  readonly #confirmed = new Set<number>();
  #wake = () => {};
  #last = 0;

  get nextId(): number {
    return this.#last + 1;
  }

  tell(update: Record<string, unknown>): void {
    this.#updates.push({ update_id: ++this.#last, ...update });
    this.#wake();
  }

  repeat(): void {
    for (const { update_id: _, ...update } of [...this.#updates]) this.tell(update);
  }

  /** A long poll: waits for an update, for `timeout` seconds and `pollMs` at most. */
  async poll(body: Record<string, unknown>): Promise<Update[]> {
    const offset = Number(body.offset ?? 0);
    for (const { update_id: id } of this.#updates) if (id < offset) this.#confirmed.add(id);
    const left = () => this.#updates.filter(({ update_id: id }) => !this.#confirmed.has(id) && id >= offset);
    const until = Date.now() + Math.min(Number(body.timeout ?? 0) * 1_000, pollMs);
    while (left().length === 0 && Date.now() < until) await this.#next(until);
    return left().slice(0, Number(body.limit ?? 100));
  }

  #next(until: number): Promise<void> {
    return new Promise<void>((resolve) => {
      const before = this.#wake;
      this.#wake = () => {
        before();
        resolve();
      };
      setTimeout(resolve, until - Date.now());
    });
  }
}

const bot = { id: 666, is_bot: true, first_name: "Test", username: "TestNameBot" };
const unknownMethod = Symbol("a method that the server does not know");

const personOf = (userId: number) => ({
  ...{ id: userId, is_bot: false },
  ...{ first_name: "Ada", username: `ada${userId}` },
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

/** The chats, as the bot and people change them. */
class Chats {
  readonly #server = new TelegramServer({ storeTimeout: 3_600 });
  readonly #posted = new Map<string, TelegramMessage>();
  readonly #updates: Updates;
  #lastMessage = 1_000;

  constructor(updates: Updates) {
    this.#updates = updates;
  }

  shown(chatId: number): TelegramMessage[] {
    return [...this.#posted.values()].filter((message) => message.chatId === String(chatId));
  }

  /** The result of a bot's call; undefined for an edit of a message that is not there. */
  async answer({ method, body, token }: Call): Promise<unknown> {
    switch (method) {
      case "getMe":
        return bot;
      case "getWebhookInfo":
        return { url: "", has_custom_certificate: false, pending_update_count: 0 };
      case "getUpdates":
        return this.#updates.poll(body);
      case "sendRichMessage":
      case "sendMessage": {
        const sent = { ...body, text: textOf(body) } as never;
        const message = this.#server.addBotMessage(sent, token) as unknown as { message_id: number };
        return this.#keep(Number(body.chat_id), message.message_id, body);
      }
      case "editMessageText":
        this.#server.editMessageText({ ...body, text: textOf(body) } as never);
        if (!this.#posted.has(`${body.chat_id} ${body.message_id}`)) return undefined;
        return this.#keep(Number(body.chat_id), Number(body.message_id), body);
      case "sendChatAction":
      case "answerCallbackQuery":
      case "setWebhook":
      case "deleteWebhook":
        return true;
      default:
        // Methods that this Bot API is too old for.
        return unknownMethod;
    }
  }

  #keep(chatId: number, messageId: number, body: Record<string, unknown>) {
    const markup = body.reply_markup as
      | { inline_keyboard?: { text: string; callback_data?: string }[][] }
      | undefined;
    const buttons = (markup?.inline_keyboard ?? [])
      .flat()
      .map(({ text, callback_data: data = "" }) => ({ text, data }));
    const text = textOf(body);
    this.#posted.set(`${chatId} ${messageId}`, { chatId: String(chatId), messageId, text, buttons });
    const date = Math.floor(Date.now() / 1_000);
    return { message_id: messageId, date, chat: chatOf(chatId), from: bot, text };
  }

  write(
    text: string,
    {
      userId = 7,
      chatId = userId,
      isMention = false,
    }: { userId?: number; chatId?: number; isMention?: boolean } = {},
  ): number {
    const messageId = ++this.#lastMessage;
    const said = isMention ? `@TestNameBot ${text}` : text;
    const entities = isMention
      ? [{ type: "mention", offset: 0, length: 12 }]
      : text.startsWith("/")
        ? [{ type: "bot_command", offset: 0, length: text.split(" ")[0]!.length }]
        : [];
    this.#updates.tell({
      message: {
        ...{ message_id: messageId, date: Math.floor(Date.now() / 1_000), text: said, entities },
        ...{ from: personOf(userId), chat: chatOf(chatId) },
      },
    });
    return messageId;
  }

  press(message: TelegramMessage, label: string, userId: number): void {
    const button = message.buttons.find(({ text }) => text === label);
    if (!button) throw new Error(`no button "${label}" in "${message.text}"`);
    const chat = chatOf(Number(message.chatId));
    this.#updates.tell({
      callback_query: {
        ...{ id: String(this.#updates.nextId), from: personOf(userId), data: button.data },
        message: { message_id: message.messageId, date: 1, chat, text: message.text },
      },
    });
  }
}
