/** The messages of a request to the MCP endpoint. Pure. */
import { inputDepthMax, isShallow, type JsonValue, parseJson } from "../../values/json.ts";

/** Maximum messages of a request, each of which may be a call. */
const messagesMax = 20;
/** Maximum levels of values: of an input, which stands some levels deep in its call. */
const depthMax = inputDepthMax + 6;

/** The code of JSON-RPC for text that is no JSON, and for messages that are not taken. */
type Problem = { code: -32_700 | -32_600; message: string };

/**
 * The messages as the transport takes them, and their number. A cancel of a call in the same
 * request is left out: a cancelled call has no answer, and the request would wait for the answer
 * for ever. A caller cancels by closing the connection.
 */
export function messagesOf(body: string): { messages: JsonValue; count: number } | Problem {
  let messages: JsonValue;
  try {
    messages = parseJson(body.replace(/^\ufeff/, ""));
  } catch {
    return { code: -32_700, message: "the body is no JSON" };
  }
  if (!isShallow(messages, depthMax))
    return { code: -32_600, message: `the message is nested more than ${depthMax} deep` };
  if (!Array.isArray(messages)) return { messages, count: 1 };
  if (messages.length > messagesMax)
    return { code: -32_600, message: `a request has at most ${messagesMax} messages` };
  const kept = messages.filter((message) => !isCancel(message));
  return { messages: kept, count: kept.length };
}

function isCancel(message: JsonValue): boolean {
  const isObject = message !== null && typeof message === "object" && !Array.isArray(message);
  return isObject && message.method === "notifications/cancelled";
}
