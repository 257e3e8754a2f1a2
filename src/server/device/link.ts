import type { ConnectResponse } from "#gen/pinion/v1/device_pb.js";
import { Bell } from "../../abort.ts";
import { Refusal } from "../../errors.ts";

/** A message that is ready to be sent: of a link that writes bytes, as these. */
export type Prepared = { readonly message: ConnectResponse; readonly bytes: Uint8Array | undefined };

/** The way to a device, as its session sees it: whatever carries the stream is behind this. */
export type Link = {
  /** Makes a message ready, once for all times that it is sent. */
  prepare(message: ConnectResponse): Prepared;
  /** Queues a message. Never waits; a device that does not read is cut when the queue is full. */
  send(message: ConnectResponse | Prepared): void;
  /** Ends the stream after what is queued: with an error, or in order. Later calls change nothing. */
  end(error?: unknown): void;
};

/** A link and what the transport takes from it. */
export type OpenLink = Link & {
  /** What to write, until the end; throws what the stream ends with. One reader. */
  messages(): AsyncGenerator<ConnectResponse>;
};

/**
 * Messages that may wait for a device that does not read. Acknowledgements are all that can pile up: assignments are
 * bounded by the device's slots.
 */
export const messagesWaitingMax = 1_000;
/** How long a stream that has ended may take to tell its peer so: one that makes no room for it is cut. */
export const endGraceMs = 2_000;
/** How often a waiting writer looks up, should a wake-up ever be missing. */
const lookUpMs = 60_000;

export function isPrepared(message: ConnectResponse | Prepared): message is Prepared {
  return "bytes" in message;
}

/** A link whose transport ends when the signal aborts. */
export function openLink(options: { signal: AbortSignal; onOverflow: () => void }): OpenLink {
  const bell = new Bell();
  const queue: ConnectResponse[] = [];
  let ending: { error: unknown } | undefined;

  function end(error?: unknown): void {
    ending ??= { error };
    bell.ring();
  }

  return {
    prepare: (message) => ({ message, bytes: undefined }),
    send(sent) {
      if (ending) return;
      const message = isPrepared(sent) ? sent.message : sent;
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
        while (queue.length > 0) yield queue.shift()!;
        if (ending) {
          if (ending.error) throw ending.error;
          return;
        }
        await bell.wait(lookUpMs, options.signal);
      }
    },
  };
}
