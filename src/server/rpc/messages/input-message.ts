/** Inputs of runs between JSON and google.protobuf.Value. */
import { create, fromJson, toJson } from "@bufbuild/protobuf";
import { type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { type RunOrigin, RunOriginSchema } from "#gen/pinion/v1/run_pb.js";
import { refuse } from "../../../errors.ts";
import type { StartRow } from "../../../store/work/runs/starts.ts";
import { redactInput, requireInput } from "../../../values/input.ts";
import type { JsonValue } from "../../../values/json.ts";

/**
 * The input of a request; undefined: none. Refuses with `invalid_argument` an input that is not
 * JSON, too large or too deep.
 */
export function inputOf(value: Value | undefined): JsonValue | undefined {
  if (!value) return undefined;
  let json: JsonValue;
  try {
    json = toJson(ValueSchema, value) as JsonValue;
  } catch {
    refuse("invalid_argument", "input: holds a number or a value that JSON has not", { field: "input" });
  }
  return requireInput(json);
}

export function inputValue(json: JsonValue): Value {
  return fromJson(ValueSchema, json);
}

export type ShownStart = StartRow & { redact: readonly string[] };

/** The fields of a run about its input and its origin. */
export function startFields({ input, origin, redact }: ShownStart): { input?: Value; origin?: RunOrigin } {
  const isFromOutside = origin.hookId !== null || origin.afterRunId !== null;
  return {
    ...(input === undefined ? {} : { input: inputValue(redactInput(input, redact)) }),
    ...(isFromOutside
      ? {
          origin: create(RunOriginSchema, {
            hookId: origin.hookId ?? "",
            hookSlug: origin.hookSlug,
            hookDeliveryId: origin.hookDeliveryId ?? "",
            afterRunId: origin.afterRunId ?? "",
            afterWatcherSlug: origin.afterWatcherSlug,
            depth: origin.depth,
          }),
        }
      : {}),
  };
}
