import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import type { Interceptor } from "@connectrpc/connect";
import { createValidateInterceptor } from "@connectrpc/validate";
import { DeviceService } from "#gen/pinion/v1/device_pb.js";
import { refuse } from "../../../errors.ts";
import { nameOf } from "../rules.ts";
import { findBadText } from "./bad-text.ts";
import { findBlankName } from "./blank-names.ts";

const patterns = new Map<string, RegExp>();

/**
 * Matches a text against a pattern of the .proto files. The validator's own engine is for patterns
 * of strangers, and spends 0.5 s on its tables of Unicode; the patterns of the .proto files are
 * few, known, and linear.
 */
function matchPattern(pattern: string, text: string): boolean {
  let compiled = patterns.get(pattern);
  if (!compiled) {
    compiled = new RegExp(pattern, "u");
    patterns.set(pattern, compiled);
  }
  return compiled.test(text);
}

// Rules compile at their first use, about 60 ms for all, and are kept.
const validator = createValidator({ failFast: true, regexMatch: matchPattern });

/**
 * The first rule of the .proto files that a message breaks: the field as its path in proto names
 * ("spec.time_zone"), and a sentence that begins with the path. Undefined for a valid message. A
 * valid message takes 0.2 to 2.3 µs.
 */
export function checkMessage<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): { field: string; message: string } | undefined {
  const badText = findBadText(schema, message);
  if (badText !== undefined) return { field: badText, message: `${badText}: is not valid UTF-8` };
  const result = validator.validate(schema, message);
  if (result.kind === "valid") return undefined;
  // A rule that does not compile is a defect of the server.
  if (result.kind === "error") throw result.error;
  const [violation] = result.violations;
  if (violation === undefined) return { field: "", message: "is not valid" };
  const field = pathToString(violation.field);
  return { field, message: field === "" ? violation.message : `${field}: ${violation.message}` };
}

const thoroughValidator = createValidator({ failFast: false, regexMatch: matchPattern });

/**
 * All rules that a message breaks, each as in {@link checkMessage}. For files, which people correct
 * as a whole.
 */
export function checkWholeMessage<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc>,
): { field: string; message: string }[] {
  const result = thoroughValidator.validate(schema, message);
  if (result.kind === "valid") return [];
  if (result.kind === "error") throw result.error;
  return result.violations.map((violation) => {
    const field = pathToString(violation.field);
    return { field, message: field === "" ? violation.message : `${field}: ${violation.message}` };
  });
}

const blankWords = "has no character that can be seen; write a name with at least one letter, digit or sign";

/** A validator that refuses a message by a Refusal, like all other checks here. */
const refusing: Validator = {
  validate(schema, message) {
    const violation = checkMessage(schema, message);
    if (violation) refuse("invalid_argument", violation.message, { field: violation.field });
    const field = findBlankName(schema, message);
    if (field) refuse("invalid_argument", `${field}: ${blankWords}`, { field });
    return { kind: "valid", message: message as never, error: undefined, violations: undefined };
  },
};

/**
 * Rpcs that validate their requests themselves: a completion that the server can never store ends
 * its run.
 */
const selfChecked = new Set([DeviceService.method.connect, DeviceService.method.completeRun].map(nameOf));

/**
 * Checks the requests of all rpcs but two, which check their own: a bad message of
 * DeviceService.Connect is answered by its session and must not end the stream, and a bad
 * completion ends its run, in the session and in CompleteRun.
 */
export function validateInterceptor(): Interceptor {
  const validate = createValidateInterceptor({ validator: refusing });
  return (next) => {
    const checked = validate(next);
    return (request) => (selfChecked.has(nameOf(request.method)) ? next(request) : checked(request));
  };
}
