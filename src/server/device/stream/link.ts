import type { ConnectResponse } from "#gen/pinion/v1/device_pb.js";
import { Refusal } from "../../../errors.ts";
import { Bell } from "../../../time/abort.ts";

/** A message ready to send: its frame if the link writes bytes, otherwise the message itself. */
export type Prepared = { readonly message: ConnectResponse } | { readonly frame: Uint8Array };

/**
 * The outgoing side of a device's stream, as its session sees the stream, independent of the
 * transport.
 */
export type Link = {
  /**
   * Encodes a message once, for any number of sends. `frame` writes the message's frame without the
   * message, if it can.
   */
  prepare(message: () => ConnectResponse, frame?: () => Uint8Array | undefined): Prepared;
  /** Queues a message. Never waits; a device that does not read is cut when the queue is full. */
  send(message: ConnectResponse | Prepared): void;
  /**
   * Ends the stream after the queued messages: with an error, or normally. Later calls change
   * nothing.
   */
  end(error?: unknown): void;
};

/** A link with the side of its transport. */
export type OpenLink = Link & {
  /** The messages to write, until the end; throws the error of the end. Only one reader. */
  messages(): AsyncGenerator<ConnectResponse>;
};

/**
 * Maximum messages that wait for a device that does not read. Only acknowledgements can pile up:
 * assignments are limited by the device's slots.
 */
export const messagesWaitingMax = 1_000;
/** Milliseconds for the peer to receive the end of a stream; after that the stream is cut. */
export const endGraceMs = 2_000;
/** Milliseconds between checks of a waiting writer, in case a wake-up is missing. */
const lookUpMs = 60_000;

/** The message, for a link that writes messages. */
function messageOf(sent: ConnectResponse | Prepared): ConnectResponse {
  if ("frame" in sent) throw new Error("a message was prepared by another link");
  return "$typeName" in sent ? sent : sent.message;
}

/** A link that ends when the transport's signal aborts. */
export function openLink(options: { signal: AbortSignal; onOverflow: () => void }): OpenLink {
  const bell = new Bell();
  const queue: ConnectResponse[] = [];
  let ending: { error: unknown } | undefined;

  function end(error?: unknown): void {
    ending ??= { error };
    bell.ring();
  }

  return {
    prepare: (message) => ({ message: message() }),
    send(sent) {
      if (ending) return;
      const message = messageOf(sent);
      if (queue.length >= messagesWaitingMax) {
        queue.length = 0;
        end(
          new Refusal("resource_exhausted", "the device does not read its stream; connect again", {
            retryAfterMs: 1_000,
          }),
        );
        options.onOverflow();
        return;
      }
      queue.push(message);
      bell.ring();
    },
    end,
    async *messages() {
      while (!options.signal.aborted) {
        for (let next = queue.shift(); next; next = queue.shift()) yield next;
        if (ending) {
          if (ending.error) throw ending.error;
          return;
        }
        await bell.wait(lookUpMs, options.signal);
      }
    },
  };
}
