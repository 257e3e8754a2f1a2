import { toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Window } from "#gen/pinion/v1/run_pb.js";

/** A result as text: the agent's answer, otherwise the program's output, otherwise the data. */
export function textOf(window: Window): string {
  if (window.result !== "") return window.result;
  const output = window.extractedData?.output;
  if (typeof output === "string" && output !== "") return output;
  return dataText(window.structured);
}

/** An answer as data, as text; empty without one. */
export function dataText(data: Value | undefined): string {
  return data === undefined ? "" : JSON.stringify(toJson(ValueSchema, data), null, 2);
}

/** The first 140 characters of a result, for a list. */
export function excerptOf(window: Window): string {
  return withoutMarkup(textOf(window).slice(0, 1_000)).slice(0, 140);
}

/** A piece of Markdown as one line of words; other text loses only spaces and line breaks. */
export function withoutMarkup(text: string): string {
  return text
    .replace(/^ {0,3}(#{1,6}|>|```\w*|\|?(?: *:?-{3,}:? *\|?)+)(?= |$)/gm, " ")
    .replace(/(\*\*|__|`+)(?=\S)(.+?)\1/g, "$2")
    .replace(/ ?\|(?= |$)/g, " · ")
    .replaceAll("**", "")
    .replace(/\s+/g, " ")
    .replace(/^[ ·]+|[ ·]+$|· (?=·)/g, "");
}
