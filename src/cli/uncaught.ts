import process from "node:process";
import type { Replica } from "../replica/replica.ts";

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
