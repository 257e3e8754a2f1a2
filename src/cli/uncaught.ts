import process from "node:process";
import type { Replica } from "../replica/replica.ts";
import type { Cli } from "./cli.ts";

/**
 * Passes uncaught errors of the process to the replica, until disposed. Node's default would end
 * the process, and with it every device's stream because of one request (docs/decisions/0008).
 */
export function surviveUncaught(replica: Pick<Replica, "uncaught">): Disposable {
  const onException = (error: unknown) => replica.uncaught(error, "uncaughtException");
  const onRejection = (error: unknown) => replica.uncaught(error, "unhandledRejection");
  process.on("uncaughtException", onException);
  process.on("unhandledRejection", onRejection);
  return {
    [Symbol.dispose]() {
      process.off("uncaughtException", onException);
      process.off("unhandledRejection", onRejection);
    },
  };
}

/** Errors told in a minute; further errors are counted only. */
const toldPerMinuteMax = 60;
const minuteMs = 60_000;

/**
 * The same for a daemon: an error that no code caught ends its own operation, and the agents of the
 * daemon go on. Each error is told with its number.
 */
export function surviveAsDaemon(cli: Pick<Cli, "note">): Disposable {
  let count = 0;
  let minute = { since: Number.NEGATIVE_INFINITY, told: 0 };
  return surviveUncaught({
    uncaught(error, origin) {
      count += 1;
      const now = performance.now();
      if (now - minute.since > minuteMs) minute = { since: now, told: 0 };
      minute.told += 1;
      if (minute.told > toldPerMinuteMax) return;
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      cli.note(`uncaught error ${count} (${origin}); its operation was ended, the daemon goes on: ${text}`);
    },
  });
}
