import type { DescMessage, Message } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import { isEverywhere, type Standing } from "../../../store/people/devices/rights.ts";
import type { Db } from "../../../store/pg/database.ts";
import { type Expected, noteExpected } from "../expected.ts";
import { type Ownership, requireAllowed } from "../ownership.ts";
import { findPrincipal } from "../principal.ts";
import { redact, remember } from "../redaction.ts";

/**
 * Milliseconds that a server stream continues under a right before its next message checks the
 * right again.
 */
const rightMs = 3_000;

/**
 * Runs after the guard and the request's rules: refuses a request that the caller may not make to
 * the devices it names, and removes unreadable fields from every answer. The rights of a server
 * stream are checked again while the stream lasts.
 */
export function ownershipInterceptor(options: { db: Db; onEvents?: (orgId: string) => void }): Interceptor {
  const { db, onEvents } = options;
  return (next) => async (request) => {
    const principal = findPrincipal(request.contextValues);
    const { method } = request;
    if (!principal || principal.deviceId !== null || method.methodKind === "bidi_streaming")
      return next(request);
    const ownership: Ownership = { db, principal };
    const note = (isFirstUse: boolean) => {
      if (isFirstUse) onEvents?.(principal.orgId);
    };
    if (!request.stream) {
      note(await requireAllowed(ownership, method, request.message));
      const response = await next(request);
      if (!response.stream) note(await redact(ownership, method.output, response.message as Message));
      return response;
    }
    let asked: unknown;
    async function* allowed(messages: AsyncIterable<Message>) {
      for await (const message of messages) {
        asked = message;
        note(await requireAllowed(ownership, method, message));
        yield message;
      }
    }
    const expected = noteExpected(request.contextValues);
    const response = await next({
      ...request,
      message: allowed(request.message as AsyncIterable<Message>) as never,
    });
    if (!response.stream) return response;
    const again = async () => {
      ownership.principal = { ...principal, isEverywhere: await isEverywhere(db, principal) };
      note(await requireAllowed(ownership, method, asked));
    };
    const message = redacted(response.message as AsyncIterable<Message>, {
      ...{ ownership, output: method.output, expected, again, note },
    });
    return { ...response, message: message as never };
  };
}

async function* redacted(
  sent: AsyncIterable<Message>,
  options: {
    ownership: Ownership;
    output: DescMessage;
    expected: Expected;
    again: () => Promise<void>;
    note: (isFirstUse: boolean) => void;
  },
): AsyncGenerator<Message> {
  const { ownership, output, expected } = options;
  let since = performance.now();
  let remembered = new Map<string, Standing>();
  for await (const message of sent) {
    if (performance.now() - since > rightMs) {
      await options.again();
      remembered = new Map();
      since = performance.now();
    }
    const { messages } = expected;
    expected.messages = [];
    if (messages.length > 1) await remember(ownership, output, messages, remembered);
    options.note(await redact(ownership, output, message, remembered));
    yield message;
  }
}
