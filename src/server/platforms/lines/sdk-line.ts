/** A line through an adapter of the Chat SDK. */
import type * as Sdk from "chat";
import type { Adapter, AdapterPostableMessage, Author, Logger, Message, Thread } from "chat";
import type { AdapterKind, Settings } from "./adapters.ts";
import { confined } from "./confined.ts";
import { inOrder } from "./in-order.ts";
import { buttonsMax, type Ear, type Line, type Said } from "./line.ts";

/**
 * Ids of buttons' actions: "p0", "p1", … A platform wants them apart within a message; the value
 * says which button it is.
 */
const actionPattern = /^p[0-9]{1,2}$/;
/** Characters of a button's label that platforms show. */
const labelMax = 60;

export type SdkLineOptions = {
  kindName: string;
  kind: AdapterKind;
  settings: Settings;
  sdk: typeof Sdk;
  adapter: Record<string, unknown>;
  state: Sdk.StateAdapter;
  ear: Ear;
};

/** Opens the line; with `settings.listens`, it hears from then on. */
export async function openSdkLine(options: SdkLineOptions): Promise<Line> {
  return confined(options.settings.reach, () => open(options));
}

async function open(options: SdkLineOptions): Promise<Line> {
  const { kindName, kind, settings, sdk, ear } = options;
  const make = options.adapter[kind.create] as (options: Record<string, unknown>) => Adapter;
  const adapter = make(kind.options(settings));
  // The conversation's snapshot is the agent's memory: messages are not stored a second time.
  Object.assign(adapter, { persistThreadHistory: false, persistMessageHistory: false });
  const chat = new sdk.Chat({
    adapters: { [kindName]: adapter },
    state: options.state,
    userName: settings.config.user_name ?? "pinion",
    logger: settings.logger,
    // A handler only stores the message: turns wait for each other in their conversation.
    concurrency: "concurrent",
  });
  listenTo(chat, adapter, options);
  await chat.initialize();
  const stopping = new AbortController();
  const listening =
    settings.listens && kind.listen
      ? kind.listen(adapter, stopping.signal).catch((error: unknown) => ear.trouble(textOf(error)))
      : undefined;
  const within = <T>(fn: () => Promise<T>) => confined(settings.reach, fn);

  return {
    textMax: kind.textMax,
    editEveryMs: kind.editEveryMs,
    post: (threadId, said) =>
      within(async () => (await adapter.postMessage(threadId, postable(sdk, said))).id),
    ...(kind.canEdit
      ? {
          edit: (threadId: string, postId: string, said: Said) =>
            within(async () => void (await adapter.editMessage(threadId, postId, postable(sdk, said)))),
        }
      : {}),
    showTyping: (threadId) => within(() => adapter.startTyping(threadId)),
    threadOf: (where) => within(() => threadOf(kindName, kind, adapter, where)),
    ...(kind.usesWebhook(settings)
      ? { takeWebhook: (request: Request) => within(() => takeWebhook(chat, kindName, request)) }
      : {}),
    async close() {
      stopping.abort();
      await chat.shutdown();
      await listening;
    },
  };
}

/** Tells what the adapter hears. */
function listenTo(chat: Sdk.Chat, adapter: Adapter, { kind, ear }: SdkLineOptions): void {
  const heard = inOrder((message) => ear.heard(message));
  const hear = async ({ id }: Pick<Thread, "id">, message: Message) => {
    if (message.author.isMe || message.author.isBot === true || message.text.trim() === "") return;
    const { id: messageId, text } = message;
    await heard({ ...placeOf(adapter, id), ...senderOf(message.author), messageId, text });
  };
  chat.onDirectMessage((thread, message) => hear(thread, message));
  chat.onNewMention(async (thread, message) => {
    await hear(thread, message);
    if (kind.hasThreads) await thread.subscribe();
  });
  chat.onSubscribedMessage(hear);
  // Telegram tells "/start" and its like apart from messages; to an agent both are words.
  chat.onSlashCommand(async ({ raw }) => {
    if (adapter.name !== "telegram") return;
    const message = adapter.parseMessage(raw);
    await hear({ id: message.threadId }, message);
  });
  chat.onAction(async ({ actionId, threadId, user, value }) => {
    if (!actionPattern.test(actionId) || value === undefined) return;
    await ear.pressed({ ...placeOf(adapter, threadId), senderId: user.userId, value });
  });
}

/**
 * Hands a request to the adapter, and answers after the message was stored: an answer before that
 * would lose a message that was not. The platform repeats a message that was not taken in.
 */
async function takeWebhook(chat: Sdk.Chat, kindName: string, request: Request): Promise<Response> {
  const tasks: Promise<unknown>[] = [];
  const webhook = chat.webhooks[kindName];
  if (!webhook) throw new Error(`the adapter of ${kindName} takes no webhook`);
  const answer = await webhook(request, {
    deduplicate: false,
    propagateHandlerErrors: true,
    waitUntil: (task) => tasks.push(task),
  });
  const failed = (await Promise.allSettled(tasks)).find((one) => one.status === "rejected");
  if (failed) throw failed.reason;
  return answer;
}

async function threadOf(
  kindName: string,
  kind: AdapterKind,
  adapter: Adapter,
  chat: string,
): Promise<string> {
  if (chat.startsWith(`${kindName}:`)) return chat;
  if (chat.startsWith("@") && adapter.openDM) return adapter.openDM(chat.slice(1));
  return kind.threadOf?.(adapter, chat) ?? `${kindName}:${chat}`;
}

/** "telegram:-100200" is the chat "-100200". */
function placeOf(adapter: Adapter, threadId: string) {
  const channel = adapter.channelIdFromThreadId(threadId);
  const chatId = channel.slice(channel.indexOf(":") + 1);
  return { threadId, chatId, isDirect: adapter.isDM?.(threadId) ?? false };
}

function senderOf({ userId, fullName, userName }: Author): { senderId: string; senderName: string } {
  return { senderId: userId, senderName: fullName || userName };
}

function postable(sdk: typeof Sdk, { text, buttons = [] }: Said): AdapterPostableMessage {
  if (buttons.length === 0) return { markdown: text };
  const made = buttons.slice(0, buttonsMax).map(({ label, value, isDanger }, index) =>
    sdk.Button({
      id: `p${index}`,
      label: label.slice(0, labelMax),
      value,
      ...(isDanger ? { style: "danger" as const } : {}),
    }),
  );
  return { card: sdk.Card({ children: [sdk.CardText(text), sdk.Actions(made)] }) };
}

/** The SDK's log, and the troubles in it. Texts are masked by `mask`. */
export function createSdkLogger(
  log: { debug(fields: object, text: string): void; warn(fields: object, text: string): void },
  ear: Pick<Ear, "trouble">,
  mask: (text: string) => string,
): Logger {
  const told = (text: string, rest: unknown[]) => {
    const [first] = rest;
    const error = first instanceof Error ? first : (first as { error?: unknown } | undefined)?.error;
    return mask(error === undefined ? text : `${text}: ${textOf(error)}`);
  };
  const logger: Logger = {
    child: () => logger,
    debug() {},
    info: (text) => log.debug({}, mask(text)),
    warn(text, ...rest) {
      log.warn({}, told(text, rest));
      ear.trouble(told(text, rest));
    },
    error(text, ...rest) {
      log.warn({}, told(text, rest));
      ear.trouble(told(text, rest));
    },
  };
  return logger;
}

function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause ?? (error as { originalError?: unknown }).originalError;
  return cause instanceof Error && cause.message ? `${error.message}: ${cause.message}` : error.message;
}
