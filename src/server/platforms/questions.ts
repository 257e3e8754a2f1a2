/**
 * Questions of an agent in a chat: a message with a button for each option, for the person whose
 * message the agent answers. A press, or a message that names an option, is the answer if the
 * question is still open; the question's message then shows the chosen option, without buttons.
 */
import { randomBytes } from "node:crypto";
import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import {
  type Question,
  type QuestionOption,
  QuestionOptionKind,
  QuestionPolicySchema,
  QuestionResponders,
  QuestionSchema,
} from "#gen/pinion/v1/activity_pb.js";
import { Refusal } from "../../errors.ts";
import * as answers from "../../scheduler/questions.ts";
import type { Lease } from "../../store/agents/platform-leases.ts";
import * as shownQuestions from "../../store/agents/platform-questions.ts";
import type { OwedReply } from "../../store/agents/platform-replies.ts";
import type { Db } from "../../store/pg/database.ts";
import * as questions from "../../store/work/turns/questions.ts";
import { excerpt } from "../../values/excerpt.ts";
import type { Heard, Line, Pressed, Said } from "./lines/line.ts";

/** Maximum questions of a turn that are read: the maximum of an attempt. */
const questionsMax = questions.questionsPerAttemptMax;
const textMax = 1_500;
/** Characters of an answer's text; the rest is cut off. */
const answerTextMax = 1_300;
/** A label, an id and a number name an option; the number comes last. */
const numberRank = 2;

type AnswerDeps = { db: Db; bell: answers.QuestionBell };
type Platform = { orgId: string; stableId: string };

const lenient = { ignoreUnknownFields: true };
const questionOf = (row: questions.QuestionRow): Question =>
  fromJson(QuestionSchema, row.question as JsonObject, lenient);

/** Shows open questions of the turn that are not shown yet, and the ends of shown questions. */
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

/**
 * The options that a chat offers, with their places in the question. "Always" permits a tool for
 * good, which is for admins and not for a chat.
 */
function offered(row: questions.QuestionRow): { option: QuestionOption; place: number }[] {
  const { responders } = fromJson(QuestionPolicySchema, row.policy as JsonObject, lenient);
  if (responders === QuestionResponders.ADMINS || responders === QuestionResponders.DEVICE_OWNER) return [];
  return questionOf(row)
    .options.map((option, place) => ({ option, place }))
    .filter(({ option }) => option.kind !== QuestionOptionKind.ALLOW_ALWAYS);
}

function openText(row: questions.QuestionRow, ref: string): Said {
  const question = questionOf(row);
  const options = offered(row);
  if (options.length === 0) return { text: `${headOf(question)}\n\nThis waits for an answer in Pinion.` };
  const names = options.map(({ option }, index) => `${index + 1} ${option.label || option.id}`).join(" · ");
  const more = question.takesText ? ", and more for the agent behind it" : "";
  return {
    text: `${headOf(question)}\n\nPress a button, or write its number or name${more}: ${names}`,
    buttons: options.map(({ option: { label, id, kind }, place }) => ({
      label: label || id,
      value: `${ref}:${place}`,
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
 * Takes a press of a button. Returns the reason of a refusal; undefined for a taken press, and for
 * a question that has ended: the question's message shows the end.
 */
export async function press(
  deps: AnswerDeps,
  platform: Platform,
  { value, senderId }: Pressed,
): Promise<string | undefined> {
  const [, ref, place] = /^([0-9a-f]{16}):(\d{1,2})$/.exec(value) ?? [];
  if (ref === undefined) return "a button was pressed that is not of a question";
  const shown = await shownQuestions.find(deps.db, { ...platform, ref });
  if (!shown) return "a button of a question was pressed that is gone";
  if (shown.senderId !== senderId) return `${senderId} pressed a button that is for ${shown.senderId}`;
  const row = await openRow(deps.db, platform.orgId, shown);
  if (!row) return undefined;
  const pressed = offered(row).find((one) => one.place === Number(place));
  if (!pressed) return "a button was pressed that this chat does not offer";
  await answer(deps, platform, row, { senderId, optionId: pressed.option.id, text: "" });
  return undefined;
}

/**
 * Takes a message as the answer to a question shown to its sender in its thread, once, also when
 * the platform tells the message again. False: the message is no answer.
 */
export async function answerByMessage(deps: AnswerDeps, platform: Platform, heard: Heard): Promise<boolean> {
  const { orgId, stableId } = platform;
  const find = () => shownQuestions.findForMessage(deps.db, { orgId, stableId, ...heard });
  const shown = await find();
  if (!shown) return false;
  const row = await openRow(deps.db, orgId, shown);
  // The question has ended, perhaps by the same message on another replica.
  if (!row) return shown.isTaken || ((await find())?.isTaken ?? false);
  const options = offered(row).map(({ option }) => option);
  const chosen = chosenBy(heard.text, options, questionOf(row).takesText);
  if (!chosen) return false;
  const { ref } = shown;
  const isOurs = await shownQuestions.takeMessage(deps.db, { orgId, ref, messageId: heard.messageId });
  if (!isOurs) return false;
  await answer(deps, platform, row, { senderId: heard.senderId, ...chosen });
  return true;
}

async function openRow(
  db: Db,
  orgId: string,
  { turnId, attemptToken, questionId }: shownQuestions.ShownQuestion,
) {
  const rows = await questions.list(db, { orgId, turnId, isOpen: true, limit: questionsMax });
  return rows.find((one) => one.attemptToken === attemptToken && one.id === questionId);
}

/** Stores an answer from the chat. A question that has ended meanwhile keeps its end. */
async function answer(
  { db, bell }: AnswerDeps,
  { orgId, stableId }: Platform,
  { workId, id: questionId }: questions.QuestionRow,
  { senderId, optionId, text }: { senderId: string; optionId: string; text: string },
): Promise<void> {
  const actor = `platform:${stableId}/${senderId}`;
  try {
    await answers.answer(db, { orgId, workId, questionId, optionId, text, actor }, { bell, mayAnswer() {} });
  } catch (error) {
    if (!(error instanceof Refusal) || error.reason !== "failed_precondition") throw error;
  }
}

/**
 * The option that a message names: by its label or id, in any case, or by its number from 1, with
 * punctuation at its end. Words after a label or id are text for the agent if the question takes
 * text; otherwise the message is no answer.
 */
export function chosenBy(
  message: string,
  options: readonly Pick<QuestionOption, "id" | "label">[],
  takesText: boolean,
): { optionId: string; text: string } | undefined {
  const said = message.trim();
  const names = options.flatMap(({ id, label }, index) =>
    [label, id, String(index + 1)].map((name, rank) => ({ name: name.trim(), optionId: id, rank })),
  );
  const found = names
    .filter(({ name }) => name !== "" && begins(said, name))
    .map((one) => ({ ...one, rest: said.slice(one.name.length).replace(/^[\s\p{P}]+/u, "") }))
    .filter(({ rest, rank }) => rest === "" || (takesText && rank < numberRank))
    .sort((a, b) => b.name.length - a.name.length || a.rank - b.rank);
  const [best] = found;
  if (!best) return undefined;
  const isAmbiguous = found.some(
    ({ name, rank, optionId }) =>
      optionId !== best.optionId && rank === best.rank && name.length === best.name.length,
  );
  return isAmbiguous ? undefined : { optionId: best.optionId, text: excerpt(best.rest, answerTextMax) };
}

/** The text begins with the name, in any case, and no letter or digit follows it. */
function begins(text: string, name: string): boolean {
  const head = text.slice(0, name.length);
  return (
    head.localeCompare(name, "en", { sensitivity: "accent" }) === 0 &&
    !/^[\p{L}\p{N}_]/u.test(text.slice(name.length))
  );
}
