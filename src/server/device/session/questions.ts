/** Questions of agents and their answers, between the stream, the bus and the store. */
import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { QuestionOptionKind, QuestionSchema } from "#gen/pinion/v1/activity_pb.js";
import type { QuestionAsked } from "#gen/pinion/v1/device_pb.js";
import type { QuestionRow } from "../../../scheduler/questions.ts";
import type { Asked } from "../../../store/work/turns/questions.ts";
import type { BusMessage } from "../../cluster/bus.ts";
import { withMoment } from "../messages/moments.ts";

export type AnswerMessage = Extract<BusMessage, { kind: "answer" }>;

/** A device's question, under the identity of its token (R6). */
export function askedOf(device: { orgId: string; deviceId: string }, message: QuestionAsked): Asked {
  const question = withMoment(message.question!, "askedAt");
  const optionOf = (kind: QuestionOptionKind) =>
    question.options.find((option) => option.kind === kind)?.id ?? "";
  return {
    ...{ orgId: device.orgId, deviceId: device.deviceId },
    ...{ workId: message.workId, attemptToken: message.attemptToken, id: question.id },
    question: toJson(QuestionSchema, question) as JsonObject,
    denies: optionOf(QuestionOptionKind.DENY_ONCE),
    allows: optionOf(QuestionOptionKind.ALLOW_ONCE),
  };
}

/** The answer message of a question that has ended. */
export function answerMessage(row: QuestionRow): AnswerMessage {
  const { orgId, deviceId, workId, attemptToken, optionId, text } = row;
  return {
    kind: "answer",
    ...{ orgId, deviceId, workId, attemptToken, optionId, text },
    questionId: row.id,
    isDefault: row.state !== "answered",
  };
}

/**
 * PostgreSQL has no NUL, and an answer must name the question and its option as their device does.
 */
export function hasStorableIds({ question }: QuestionAsked): boolean {
  return [question, ...(question?.options ?? [])].every((it) => it !== undefined && !it.id.includes("\0"));
}

/** The default answer for an attempt that may not ask: the denying option. */
export function refusedAnswer(asked: Asked): AnswerMessage {
  const { orgId, deviceId, workId, attemptToken, id, denies } = asked;
  return {
    kind: "answer",
    ...{ orgId, deviceId, workId, attemptToken },
    questionId: id,
    optionId: denies,
    text: "",
    isDefault: true,
  };
}
