/**
 * Messages of people on a platform become turns of its agent, or answer its question. One
 * transaction stores the turn, the message's id and the owed reply, so a message that arrives
 * twice, at one replica or at two, is one turn.
 */
import { createHash } from "node:crypto";
import { Refusal } from "../../errors.ts";
import type { Doorbell } from "../../scheduler/doorbell.ts";
import type { QuestionBell } from "../../scheduler/questions.ts";
import * as replies from "../../store/agents/platform-replies.ts";
import type { Quotas } from "../../store/people/orgs/quotas.ts";
import type { Db } from "../../store/pg/database.ts";
import { storableText } from "../../store/pg/values/storable.ts";
import { arm } from "../../store/work/turns/arming.ts";
import { conversationOfUser } from "../../values/conversation-ids.ts";
import { excerpt } from "../../values/excerpt.ts";
import type { Heard } from "./lines/line.ts";
import { answerByMessage } from "./questions.ts";

/** Milliseconds after the claim, and before the claim. */
const timeoutMs = 600_000;
const startTimeoutMs = 600_000;
const messageIdBytesMax = 200;
const inputBytesMax = 1_048_576;

export type Addressee = {
  orgId: string;
  stableId: string;
  agentId: string;
  kind: string;
  config: Readonly<Record<string, string>>;
};

/**
 * The reason for refusing a message; undefined for an admitted message. A direct message needs
 * its sender in `allow_from`, a message in a group needs the group in `allow_groups`. "*" admits
 * every sender or group; without the setting no message is admitted.
 */
export function refusalOf(
  { config }: Pick<Addressee, "config">,
  { isDirect, senderId, senderName, chatId }: Pick<Heard, "isDirect" | "senderId" | "senderName" | "chatId">,
): string | undefined {
  const key = isDirect ? "allow_from" : "allow_groups";
  const id = isDirect ? senderId : chatId;
  const allowed = (config[key] ?? "").split(/[\s,]+/).filter(Boolean);
  if (allowed.includes("*") || allowed.includes(id)) return undefined;
  const who = isDirect ? `${senderName} (${senderId})` : `${senderName} in the group ${chatId}`;
  return excerpt(`a message of ${who} was not let through; to let it, add ${id} to ${key}`, 300);
}

const userPattern = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]{1,128}$/u;

/**
 * The name of the sender in a conversation: "telegram:12345" in a direct chat, and
 * "telegram:12345@-100200" in a group, so that no group reads the messages of a direct chat.
 */
export function userOf(
  kind: string,
  { isDirect, senderId, chatId }: Pick<Heard, "isDirect" | "senderId" | "chatId">,
): string {
  const user = `${kind}:${senderId}${isDirect ? "" : `@${chatId}`}`;
  if (userPattern.test(user) && Buffer.byteLength(user) <= 240) return user;
  return `${kind}:${createHash("sha256").update(user).digest("hex")}`;
}

export type Taken = "new" | "repeated" | "edited" | "answer" | { refused: string };

/**
 * Records the turn of a message, or the answer in it, once. "edited": the message was recorded
 * before with another text. Refuses while the org or the conversation has no room for a turn.
 */
export async function take(
  deps: { db: Db; quotas: Quotas; bell: Pick<Doorbell, "turnStarted"> & QuestionBell },
  to: Addressee,
  heard: Heard,
): Promise<Taken> {
  const { db, quotas, bell } = deps;
  const { orgId, stableId, agentId, kind } = to;
  const refused = refusalOf(to, heard);
  if (refused !== undefined) return { refused };
  const input = storableText(heard.text);
  if (Buffer.byteLength(input) > inputBytesMax)
    return { refused: "a message of more than 1 MiB was passed over" };
  if (await answerByMessage(deps, to, heard)) return "answer";
  await quotas.requireRoom(db, "turns", orgId);
  try {
    const armed = await arm(
      db,
      {
        ...{ orgId, agentId, input, timeoutMs, startTimeoutMs },
        conversationId: conversationOfUser({ agentId, userId: userOf(kind, heard), orgId }),
        messageId: messageIdOf(stableId, heard),
        runId: null,
        agentKind: "",
        isGated: true,
      },
      (tx, turnId) =>
        replies.owe(tx, {
          ...{ orgId, stableId, turnId },
          ...{ threadId: heard.threadId, chatId: heard.chatId, senderId: heard.senderId },
        }),
    );
    if (!armed.isNew) return "repeated";
    bell.turnStarted({ orgId, ...armed });
    return "new";
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.reason === "already_exists") return "edited";
    if (error.reason === "not_found" || error.reason === "failed_precondition") {
      return { refused: error.message };
    }
    throw error;
  }
}

/** Names the message for ever: the platform's ids are unique within a chat at least. */
function messageIdOf(stableId: string, { chatId, messageId }: Heard): string {
  const id = `${stableId}/${chatId}/${messageId}`;
  if (Buffer.byteLength(id) <= messageIdBytesMax && !id.includes("\0")) return id;
  return createHash("sha256").update(id).digest("hex");
}
