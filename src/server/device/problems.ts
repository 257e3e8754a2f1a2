import { type Completion, type ConnectRequest, ConnectRequestSchema } from "#gen/pinion/v1/device_pb.js";
import { Refusal } from "../../errors.ts";
import { checkMessage } from "../access/interceptors/validate.ts";
import { normalizeNames } from "./messages.ts";
import { isPlainlyValid } from "./plain-requests.ts";
import { reactions, type SessionState } from "./session-table.ts";

/** Why a message ends the session, or, of a completion, why the completion is turned down. */
type Problem = { cause: string; refusal: Refusal; completion?: Completion };

/**
 * The problem of a message in a state; undefined for a message that is to be handled. Writes the
 * message's ids in lower case.
 */
export function problemOf(state: SessionState, request: ConnectRequest): Problem | "ignored" | undefined {
  const input = request.message.case;
  if (!input) {
    const message = "message: exactly one is required";
    return { cause: "bad_message", refusal: new Refusal("invalid_argument", message, { field: "message" }) };
  }
  const reaction = reactions[state][input];
  if (reaction === "ignore") return "ignored";
  if (reaction === "refuse_before_hello" || reaction === "refuse_second_hello") {
    const why =
      reaction === "refuse_before_hello"
        ? `${input} before the hello was answered; send hello first, and wait for welcome`
        : "a second hello; a stream has one, so open another stream";
    return { cause: "out_of_order", refusal: new Refusal("failed_precondition", why) };
  }
  normalizeNames(request);
  const violation = isPlainlyValid(request) ? undefined : checkMessage(ConnectRequestSchema, request);
  if (!violation) return undefined;
  const { message, field } = violation;
  const problem = { cause: "bad_message", refusal: new Refusal("invalid_argument", message, { field }) };
  return request.message.case === "complete" ? { ...problem, completion: request.message.value } : problem;
}
