import type { Message } from "@bufbuild/protobuf";
import { type ContextValues, createContextKey } from "@connectrpc/connect";

/**
 * The next messages of a stream, said by the handler before it sends them: what the stream needs to
 * know of all of them is read at once, and not message by message (interceptors/ownership.ts).
 */
export type Expected = { messages: readonly Message[] };

const expectedKey = createContextKey<Expected | undefined>(undefined, { description: "expected messages" });

/** Has the handler's {@link expect} noted in what is returned. */
export function noteExpected(values: ContextValues): Expected {
  const expected: Expected = { messages: [] };
  values.set(expectedKey, expected);
  return expected;
}

/** Says what the handler sends next. It may send less, or other messages. */
export function expect(context: { values: ContextValues }, messages: readonly Message[]): void {
  const expected = context.values.get(expectedKey);
  if (expected) expected.messages = messages;
}
