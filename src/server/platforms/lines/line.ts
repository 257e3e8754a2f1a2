/** A line to a chat platform: what an instance says and hears there, whatever the platform. */

/** A message of a person, as the platform tells it. */
export type Heard = {
  /** The place on the platform where replies go. */
  threadId: string;
  /** The chat as people name it in `allow_groups` and in destinations. */
  chatId: string;
  /** The platform's id of the message. */
  messageId: string;
  /** The platform's id of the sender. */
  senderId: string;
  senderName: string;
  text: string;
  /** In a direct chat with the bot. */
  isDirect: boolean;
};

/** A press of a button of {@link Said.buttons}. */
export type Pressed = {
  threadId: string;
  chatId: string;
  isDirect: boolean;
  senderId: string;
  value: string;
};

/** A message of the agent, in Markdown. */
export type Said = {
  text: string;
  /** Shown where the platform has buttons; at most {@link buttonsMax}. */
  buttons?: readonly { label: string; value: string; isDanger: boolean }[];
};

export const buttonsMax = 16;

export type Line = {
  /** Characters of one message; a longer reply is sent in parts. */
  textMax: number;
  /** Milliseconds between two edits of a message. */
  editEveryMs: number;
  /** Posts a message; resolves to the platform's id of it. */
  post(threadId: string, said: Said, id: string): Promise<string>;
  /** Replaces a message. Undefined: the platform cannot; a reply is posted once it is whole. */
  edit?: (threadId: string, postId: string, said: Said) => Promise<void>;
  showTyping?: (threadId: string) => Promise<void>;
  /** The thread of a chat that a person named, for messages that answer none. */
  threadOf(chat: string): Promise<string>;
  /** Undefined: the platform is asked for messages, and sends none. */
  takeWebhook?: (request: Request) => Promise<Response>;
  close(): Promise<void>;
};

/** Where a line tells what it hears. A rejection: not taken in, and to be told again. */
export type Ear = {
  heard(message: Heard): Promise<void>;
  pressed(press: Pressed): Promise<void>;
  /** Trouble of the line that has no caller. */
  trouble(what: string): void;
};

/** The platform's own words why it does not serve the bot; a later try would hear the same. */
export class PlatformRefused extends Error {
  override name = "PlatformRefused";
}
