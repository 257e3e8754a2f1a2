import process from "node:process";
import type { Replica } from "../replica/replica.ts";

/**
 * Hands the replica what arrives at the process without anybody having caught it, until disposed. Node's own answer would
 * be to end the process, and with it every stream of every device for the sake of one request (docs/decisions/0008).
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
