/**
 * Handling of uncaught errors: an error that no code caught ends the request that caused it, and no
 * other request.
 *
 * - An error thrown by a handler, or a rejected promise of a handler, is caught where the port
 *   calls the handler.
 * - An error thrown by a listener of a stream, request, response or session is caught where the
 *   event is emitted.
 * - An error in a timer or an unawaited promise arrives at the process (cli/uncaught.ts). The
 *   asynchronous context names the request that started the work.
 *
 * Each case is a defect of the server: it is logged as an error and counted.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { EventEmitter } from "node:events";
import type { Logger } from "../../../telemetry/log.ts";
import type { UncaughtOrigin } from "../../../telemetry/metrics.ts";

/**
 * Ends one request, stream or connection: with an answer if no byte of an answer has left, by a cut
 * otherwise. Idempotent.
 */
export type End<Owner> = (owner: Owner) => void;

/** What an error ends: a guarded emitter, or anything that can be destroyed. */
export type Owner = EventEmitter | { destroy?(): unknown };

export type LastLine = {
  /**
   * Runs `work` and returns its result. If `work` throws or rejects, or if work that it started
   * fails later, its owner is ended as its guard says, or destroyed, and nothing else ends.
   */
  run<T>(owner: Owner, work: () => T): T | undefined;
  /**
   * Catches errors thrown by the listeners of an emitter, until the emitter ends. Each idle device
   * has three guarded emitters, so they share what they can: a guard adds two properties.
   */
  guard<Emitter extends EventEmitter>(emitter: Emitter, end: End<Emitter>): void;
  /** Takes an error that arrived at the process. */
  uncaught(error: unknown, origin: "uncaughtException" | "unhandledRejection"): void;
};

/**
 * Errors above this number per minute are counted and not logged, so that a peer that triggers
 * errors cannot fill the log.
 */
const loggedPerMinuteMax = 60;
const minuteMs = 60_000;

const endOf = Symbol("the end of what the emitter belongs to");
type Guarded = Owner & { [endOf]?: End<never> };

export function createLastLine(options: {
  log: Logger;
  onUncaught?: ((origin: UncaughtOrigin) => void) | undefined;
}): LastLine {
  const { log, onUncaught } = options;
  const requests = new AsyncLocalStorage<Guarded>();
  let minute = { since: Number.NEGATIVE_INFINITY, logged: 0 };

  function take(origin: UncaughtOrigin, error: unknown, owner: Guarded | undefined): void {
    onUncaught?.(origin);
    const now = performance.now();
    if (now - minute.since > minuteMs) minute = { since: now, logged: 0 };
    if (++minute.logged <= loggedPerMinuteMax) log.error({ err: error, origin }, consequences[origin]);
    try {
      if (owner) endGuarded(owner);
    } catch (failure) {
      log.error({ err: failure }, "a request could not be ended");
    }
  }

  function emit(this: EventEmitter, ...args: Parameters<EventEmitter["emit"]>): boolean {
    // Without a listener Node throws the error itself: the peer broke something, and we made no
    // mistake.
    if (args[0] === "error" && this.listenerCount("error") === 0) {
      endGuarded(this as Guarded);
      return false;
    }
    return requests.run(this as Guarded, () => {
      try {
        return (Object.getPrototypeOf(this) as EventEmitter).emit.apply(this, args);
      } catch (error) {
        take("callback", error, this as Guarded);
        return true;
      }
    });
  }

  return {
    run(owner, work) {
      return requests.run(owner, () => {
        try {
          const working = work();
          if (working instanceof Promise) working.catch((error: unknown) => take("handler", error, owner));
          return working;
        } catch (error) {
          take("handler", error, owner);
          return undefined;
        }
      });
    },
    guard(emitter, end) {
      Object.assign(emitter, { [endOf]: end, emit });
    },
    uncaught(error, origin) {
      const owner = requests.getStore();
      if (origin === "unhandledRejection") take("rejection", error, owner);
      else take(owner ? "callback" : "process", error, owner);
    },
  };
}

function endGuarded(owner: Guarded): void {
  const end = owner[endOf] as End<Guarded> | undefined;
  if (end) end(owner);
  else if ("destroy" in owner) owner.destroy?.();
}

const consequences: Record<UncaughtOrigin, string> = {
  handler: "a handler failed; its request was ended",
  callback: "a callback of a request failed; the request was ended",
  rejection: "a promise that nothing waited for was rejected; its operation was ended",
  process: "an error was thrown outside of any request; the replica goes on",
};
