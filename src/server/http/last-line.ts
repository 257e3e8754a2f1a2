/**
 * The last line of defence: an error that nothing caught ends the request in whose course it was thrown, and no other.
 *
 * - A handler that throws, or whose promise rejects, is caught where the port calls it.
 * - A listener of a stream, a request, a response or a session that throws is caught where the event is emitted.
 * - A timer or a promise that nothing waits for arrives at the process (cli/uncaught.ts). The asynchronous context says
 *   which request began it.
 *
 * Each case is a mistake of ours: it is logged as an error and counted.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { EventEmitter } from "node:events";
import type { Logger } from "../../log.ts";
import type { UncaughtOrigin } from "../../metrics.ts";

/** Ends one request, stream or connection: with an answer if nothing of one has left, cut otherwise. May be called again. */
export type End = () => void;

export type LastLine = {
  /**
   * Runs `work` and answers what it answers. If it throws, rejects, or something that it began fails later, `end` is called,
   * and nothing else ends.
   */
  run<T>(end: End, work: () => T): T | undefined;
  /** Catches what the listeners of an emitter throw, for as long as it lives. */
  guard(emitter: EventEmitter, end: End): void;
  /** Takes an error that arrived at the process. */
  uncaught(error: unknown, origin: "uncaughtException" | "unhandledRejection"): void;
};

/** Beyond so many in a minute they are only counted: a peer that found one must not fill the log. */
const loggedPerMinuteMax = 60;
const minuteMs = 60_000;

export function createLastLine(options: {
  log: Logger;
  onUncaught?: ((origin: UncaughtOrigin) => void) | undefined;
}): LastLine {
  const { log, onUncaught } = options;
  const requests = new AsyncLocalStorage<End>();
  let minute = { since: Number.NEGATIVE_INFINITY, logged: 0 };

  function take(origin: UncaughtOrigin, error: unknown, end: End | undefined): void {
    onUncaught?.(origin);
    const now = performance.now();
    if (now - minute.since > minuteMs) minute = { since: now, logged: 0 };
    if (++minute.logged <= loggedPerMinuteMax) log.error({ err: error, origin }, consequences[origin]);
    try {
      end?.();
    } catch (failure) {
      log.error({ err: failure }, "a request could not be ended");
    }
  }

  return {
    run(end, work) {
      return requests.run(end, () => {
        try {
          const working = work();
          if (working instanceof Promise) working.catch((error: unknown) => take("handler", error, end));
          return working;
        } catch (error) {
          take("handler", error, end);
          return undefined;
        }
      });
    },
    guard(emitter, end) {
      const emit = emitter.emit;
      emitter.emit = function (this: EventEmitter, ...args: Parameters<EventEmitter["emit"]>): boolean {
        // Without a listener Node throws the error itself: the peer broke something, and we made no mistake.
        if (args[0] === "error" && emitter.listenerCount("error") === 0) {
          end();
          return false;
        }
        return requests.run(end, () => {
          try {
            return emit.apply(emitter, args);
          } catch (error) {
            take("callback", error, end);
            return true;
          }
        });
      };
    },
    uncaught(error, origin) {
      const end = requests.getStore();
      if (origin === "unhandledRejection") take("rejection", error, end);
      else take(end ? "callback" : "process", error, end);
    },
  };
}

const consequences: Record<UncaughtOrigin, string> = {
  handler: "a handler failed; its request was ended",
  callback: "a callback of a request failed; the request was ended",
  rejection: "a promise that nothing waited for was rejected; its operation was ended",
  process: "an error was thrown outside of any request; the replica goes on",
};
