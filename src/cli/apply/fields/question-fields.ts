import { create } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { type QuestionPolicy, QuestionPolicySchema } from "#gen/pinion/v1/activity_pb.js";
import { parseLength } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import { lengthText } from "../file/lengths.ts";
import type { WatcherTree } from "../file/shape.ts";

/** A question policy, including defaults. */
export type QuestionFields = { timeout: string; default: string; responders: string; wait_max: string };

const questionDefaults: QuestionFields = {
  timeout: "10m",
  default: "deny",
  responders: "users",
  wait_max: "1h",
};

/** A policy with only defaults equals no policy. */
function orNull(fields: QuestionFields): QuestionFields | null {
  const names = Object.keys(questionDefaults) as (keyof QuestionFields)[];
  return names.every((name) => fields[name] === questionDefaults[name]) ? null : fields;
}

export function questionsOfTree(tree: WatcherTree["questions"]): QuestionFields | null {
  const length = (text: string | undefined, otherwise: string) =>
    text === undefined ? otherwise : lengthText(parseLength(text, "a length"));
  return orNull({
    timeout: length(tree?.timeout, questionDefaults.timeout),
    default: tree?.default ?? questionDefaults.default,
    responders: tree?.responders ?? questionDefaults.responders,
    wait_max: length(tree?.wait_max, questionDefaults.wait_max),
  });
}

export function questionsOfSpec(policy: QuestionPolicy | undefined): QuestionFields | null {
  const length = (duration: Duration | undefined, otherwise: string) =>
    duration ? lengthText(durationMs(duration)) : otherwise;
  return orNull({
    timeout: length(policy?.timeout, questionDefaults.timeout),
    default: words.questionDefault.word(policy?.defaultAnswer ?? 0) || questionDefaults.default,
    responders: words.questionResponders.word(policy?.responders ?? 0) || questionDefaults.responders,
    wait_max: length(policy?.waitMax, questionDefaults.wait_max),
  });
}

export function policyOf(fields: QuestionFields | null): QuestionPolicy | undefined {
  return fields
    ? create(QuestionPolicySchema, {
        timeout: durationFromMs(parseLength(fields.timeout, "questions.timeout")),
        defaultAnswer: words.questionDefault.value(fields.default, "questions.default"),
        responders: words.questionResponders.value(fields.responders, "questions.responders"),
        waitMax: durationFromMs(parseLength(fields.wait_max, "questions.wait_max")),
      })
    : undefined;
}
