/**
 * A reply on its way to a chat. The reply streams into one message, which is edited as the agent
 * speaks; the message's id is stored before the final text goes into the message, so a replica that
 * takes over edits the same message, and the chat has one reply.
 *
 *   no post ──post "…"──▶ posted, id stored ──edits──▶ final text ──▶ (further parts) ──▶ sent
 *
 * On a platform without edits the whole reply is posted under the turn's id.
 */
import type { Lease } from "../../store/agents/platform-leases.ts";
import * as replies from "../../store/agents/platform-replies.ts";
import type { Db } from "../../store/pg/database.ts";
import * as turns from "../../store/work/turns/turns.ts";
import type { Logger } from "../../telemetry/log.ts";
import { Bell, within } from "../../time/abort.ts";
import { excerpt } from "../../values/excerpt.ts";
import { wordsOf } from "../destinations/answer.ts";
import type { Line } from "./lines/line.ts";
import { showQuestions } from "./questions.ts";
import { createSpeech, finalText, partsOf, type SpeechFeed } from "./speech.ts";

/** Milliseconds between reads of a turn without a wake-up, in case a wake-up was lost. */
const rereadMs = 5_000;
/** Milliseconds before the second try; doubled after each failure, up to the maximum. */
const retryMs = 2_000;
const retryMsMax = 300_000;
/** Milliseconds after which a reply is given up, if the platform refuses the reply. */
const giveUpMs = 86_400_000;
/** Maximum milliseconds that a reply waits for the previous reply of its conversation. */
const orderWaitMs = 10_000;
/** Failures of edits after which the message is posted anew. */
const editFailuresMax = 3;
const placeholder = "…";

export type Replier = {
  db: Db;
  log: Logger;
  feed: SpeechFeed;
  line: Line;
  lease: Lease;
  publicUrl: string | undefined;
  mask: (text: string) => string;
  /** Aborts when another replica may have the lease. */
  signal: AbortSignal;
  /** The try to send the conversation's previous reply; resolves at the end of the try. */
  before: Promise<void> | undefined;
  said(): void;
  trouble(what: string): void;
};

/** Sends one reply to its chat while the lease lasts. Never rejects. */
export async function answer(how: Replier, owed: replies.OwedReply): Promise<void> {
  const which = { lease: how.lease, turnId: owed.turnId };
  try {
    await speak(how, owed);
  } catch (error) {
    if (how.signal.aborted) return;
    const what = excerpt(how.mask(wordsOf(error)), 300);
    how.trouble(`a reply could not be sent: ${what}`);
    const isLast = Date.now() - owed.createdAt.getTime() > giveUpMs;
    const waitMs = Math.max(
      Math.min(retryMs * 2 ** owed.attempts, retryMsMax),
      ((error as { retryAfter?: number }).retryAfter ?? 0) * 1_000,
    );
    try {
      await replies.fail(how.db, which, { error: what, ...(isLast ? {} : { retryInMs: waitMs }) });
      if (owed.postId !== null && owed.attempts + 1 >= editFailuresMax && owed.partsSent === 0)
        await replies.savePost(how.db, which, null);
    } catch (lost) {
      how.log.warn({ err: lost, turnId: owed.turnId }, "a failed reply could not be recorded");
    }
  }
}

async function speak(how: Replier, owed: replies.OwedReply): Promise<void> {
  const { line, signal } = how;
  const bell = new Bell();
  // The turn is read only after a reported change; new text needs no read.
  let mayHaveChanged = true;
  const speech = createSpeech(how.feed, owed, {
    change() {
      mayHaveChanged = true;
      bell.ring();
    },
    text: () => bell.ring(),
  });
  const post = createPost(how, owed);
  let editedAt = 0;
  let lookedAt = 0;
  try {
    while (!signal.aborted) {
      if (mayHaveChanged || performance.now() - lookedAt >= rereadMs) {
        mayHaveChanged = false;
        lookedAt = performance.now();
        if ((await look(how, owed, post)) === "ended") return;
      }
      const sinceMs = performance.now() - editedAt;
      const partial = speech.text();
      if (line.edit && partial !== post.shown && sinceMs >= line.editEveryMs) {
        editedAt = performance.now();
        if (!(await post.show(partial))) return;
      }
      const isBehind = line.edit !== undefined && speech.text() !== post.shown;
      await bell.wait(isBehind ? line.editEveryMs : rereadMs, signal);
    }
  } finally {
    speech.close();
  }
}

/** Reads the turn: shows its questions, and its reply once it has ended. */
async function look(
  how: Replier,
  owed: replies.OwedReply,
  post: ReturnType<typeof createPost>,
): Promise<"ended" | undefined> {
  const turn = await turns.find(how.db, owed);
  if (!turn) {
    const which = { lease: how.lease, turnId: owed.turnId };
    await replies.fail(how.db, which, { error: "the turn was deleted" });
    return "ended";
  }
  // A failure to show a question does not fail the reply.
  await showQuestions(how, owed).catch((error: unknown) => how.trouble(troubleWith("question", error)));
  if (!turn.finishedAt) return undefined;
  await finish(how, owed, { text: finalText(turn), post });
  return "ended";
}

/**
 * Waits for the previous reply, so that a conversation reads in its order. False if the lease may
 * be lost.
 */
async function isNext({ before, signal }: Replier): Promise<boolean> {
  if (before) await within(before, orderWaitMs);
  return !signal.aborted;
}

/** The message with the reply. */
function createPost(how: Replier, owed: replies.OwedReply) {
  const { db, line, lease, signal, trouble } = how;
  const { threadId, turnId } = owed;
  const post = {
    id: owed.postId,
    shown: "",
    /** The id of the message, posted and stored; undefined if another replica has the reply now. */
    async open(): Promise<string | undefined> {
      if (post.id !== null) return post.id;
      if (!(await isNext(how))) return undefined;
      const id = await line.post(threadId, { text: placeholder }, turnId);
      post.id = id;
      const isOurs = !signal.aborted && (await replies.savePost(db, { lease, turnId }, id));
      return isOurs ? id : undefined;
    },
    /** Shows the text so far. After a failure the next edit shows the text. */
    async show(text: string): Promise<boolean> {
      post.shown = text;
      const id = await post.open();
      if (id === undefined) return false;
      try {
        await line.edit?.(threadId, id, {
          text: `${excerpt(text, line.textMax - 2)} ${placeholder}`,
        });
      } catch (error) {
        trouble(troubleWith("reply's progress", error));
      }
      return true;
    },
  };
  return post;
}

function troubleWith(what: string, error: unknown): string {
  return `a ${what} could not be shown: ${excerpt(wordsOf(error), 200)}`;
}

async function finish(
  how: Replier,
  owed: replies.OwedReply,
  { text, post }: { text: string; post: ReturnType<typeof createPost> },
): Promise<void> {
  const { db, line, lease, signal } = how;
  const { threadId, turnId } = owed;
  const which = { lease, turnId };
  const parts = partsOf(text, line.textMax, how.publicUrl);
  for (const [index, part] of parts.entries()) {
    if (index < owed.partsSent) continue;
    if (signal.aborted) return;
    if (index === 0 && line.edit) {
      const id = await post.open();
      if (id === undefined) return;
      await line.edit(threadId, id, { text: part }).catch((error: unknown) => {
        // An earlier replica had made the same edit already.
        if (!/not modified/i.test(String(error))) throw error;
      });
    } else {
      if (index === 0 && !(await isNext(how))) return;
      await line.post(threadId, { text: part }, index === 0 ? turnId : `${turnId}-${index + 1}`);
    }
    how.said();
    if (index + 1 < parts.length && !(await replies.saveParts(db, which, index + 1))) return;
  }
  await replies.finish(db, which);
}
