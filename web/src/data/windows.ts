import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Window } from "#gen/pinion/v1/run_pb.js";

/** A result as text: the agent's answer, otherwise the program's output, otherwise the data. */
export function textOf(window: Window): string {
  if (window.result !== "") return window.result;
  const output = window.extractedData?.output;
  if (typeof output === "string" && output !== "") return output;
  return window.structured === undefined
    ? ""
    : JSON.stringify(toJson(ValueSchema, window.structured), null, 2);
}

/** The first 140 characters of a result, for a list. */
export function excerptOf(window: Window): string {
  return textOf(window).replace(/\s+/g, " ").trim().slice(0, 140);
}
