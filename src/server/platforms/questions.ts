/**
 * Questions of an agent in a chat: a message with a button for each option, for the person whose
 * message the agent answers. A press is the answer if the question is still open; the message then
 * shows what was chosen, without buttons.
 */
import { randomBytes } from "node:crypto";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import {
  type Question,
  QuestionOptionKind,
  QuestionPolicySchema,
  QuestionResponders,
  QuestionSchema,
} from "#gen/pinion/v1/activity_pb.js";
import { Refusal } from "../../errors.ts";
import { excerpt } from "../../excerpt.ts";
import * as answers from "../../scheduler/questions.ts";
import type { Lease } from "../../store/agents/platform-leases.ts";
import * as shownQuestions from "../../store/agents/platform-questions.ts";
import type { OwedReply } from "../../store/agents/platform-replies.ts";
import type { Db } from "../../store/pg/database.ts";
import * as questions from "../../store/work/questions.ts";
import type { Line, Pressed, Said } from "./line.ts";

/** Questions of a turn that are looked at; an attempt has at most so many. */
const questionsMax = questions.questionsPerAttemptMax;
const textMax = 1_500;

const lenient = { ignoreUnknownFields: true };
const questionOf = (row: questions.QuestionRow): Question =>
  fromJson(QuestionSchema, row.question as JsonObject, lenient);

/** Shows the turn's open questions that are not shown yet, and the ends of the shown ones. */
export async function showQuestions(
  { db, line, lease, said }: { db: Db; line: Line; lease: Lease; said(): void },
  { orgId, turnId, threadId, senderId }: OwedReply,
): Promise<void> {
  const asked = await questions.list(db, { orgId, turnId, isOpen: false, limit: questionsMax });
  if (asked.length === 0) return;
  const shown = await shownQuestions.listOfTurn(db, { orgId, turnId });
  for (const row of asked.toReversed()) {
    const known = shown.find((one) => one.attemptToken === row.attemptToken && one.questionId === row.id);
    if (row.state === "open" && !known?.postId) {
      const ref = known?.ref ?? randomBytes(8).toString("hex");
      const { attemptToken, id: questionId } = row;
      const begun =
        known !== undefined ||
        (await shownQuestions.begin(db, lease, {
          ref,
          turnId,
          attemptToken,
          questionId,
          senderId,
          threadId,
        }));
      if (!begun) return;
      const postId = await line.post(threadId, openText(row, ref), ref);
      await shownQuestions.savePost(db, lease, { ref, postId });
      said();
    } else if (row.state !== "open" && known && !known.isClosed) {
      if (known.postId !== null && line.edit) await line.edit(threadId, known.postId, { text: endText(row) });
      await shownQuestions.close(db, lease, known);
    }
  }
}

function headOf({ title, text }: Question): string {
  return [title, excerpt(text, textMax)].filter(Boolean).join("\n\n");
}

function openText(row: questions.QuestionRow, ref: string): Said {
  const question = questionOf(row);
  const { responders } = fromJson(QuestionPolicySchema, row.policy as JsonObject, lenient);
  const mayAnswer =
    responders !== QuestionResponders.ADMINS && responders !== QuestionResponders.DEVICE_OWNER;
  if (!mayAnswer) return { text: `${headOf(question)}\n\nThis waits for an answer in Pinion.` };
  return {
    text: headOf(question),
    buttons: question.options.map(({ label, id, kind }, index) => ({
      label: label || id,
      value: `${ref}:${index}`,
      isDanger: kind === QuestionOptionKind.DENY_ONCE || kind === QuestionOptionKind.DENY_ALWAYS,
    })),
  };
}

function endText(row: questions.QuestionRow): string {
  const question = questionOf(row);
  const chosen = question.options.find(({ id }) => id === row.optionId);
  const label = chosen?.label || row.optionId;
  const ends = {
    open: "",
    answered: `→ ${label}`,
    expired: label ? `→ ${label}, since no one answered` : "No one answered.",
    withdrawn: "The agent no longer asks.",
  };
  return `${headOf(question)}\n\n${ends[row.state]}`;
}

/**
 * A press of a button. Returns why it was not taken; undefined if it was, also for a question that
 * has ended, whose message shows its end.
 */
export async function press(
  { db, bell }: { db: Db; bell: answers.QuestionBell },
  platform: { orgId: string; stableId: string },
  { value, senderId }: Pressed,
): Promise<string | undefined> {
  const [, ref, place] = /^([0-9a-f]{16}):(\d{1,2})$/.exec(value) ?? [];
  if (ref === undefined) return "a button was pressed that is not of a question";
  const shown = await shownQuestions.find(db, { ...platform, ref });
  if (!shown) return "a button of a question was pressed that is gone";
  if (shown.senderId !== senderId) return `${senderId} pressed a button that is for ${shown.senderId}`;
  const { orgId } = platform;
  const rows = await questions.list(db, { orgId, turnId: shown.turnId, isOpen: true, limit: questionsMax });
  const row = rows.find((one) => one.attemptToken === shown.attemptToken && one.id === shown.questionId);
  const option = row && questionOf(row).options[Number(place)];
  if (!row || !option) return undefined;
  try {
    await answers.answer(
      db,
      {
        ...{ orgId, workId: shown.turnId, isTurn: true, questionId: row.id, text: "" },
        optionId: option.id,
        actor: `platform:${platform.stableId}/${senderId}`,
      },
      { bell, mayAnswer() {} },
    );
  } catch (error) {
    if (!(error instanceof Refusal) || error.reason !== "failed_precondition") throw error;
  }
  return undefined;
}
