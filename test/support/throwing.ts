/**
 * Preloaded into a process (`node --import`) that is to survive: on SIGUSR2, throws from a timer
 * and leaves an unhandled rejection; and the sockets of a server throw when a request has the
 * header `x-throw`.
 */
import { Server } from "node:http";

process.on("SIGUSR2", () => {
  setTimeout(() => {
    throw new Error("thrown from a timer");
  });
  void Promise.reject(new Error("rejected for nobody"));
});

const emit = Server.prototype.emit;
Server.prototype.emit = function (this: Server, event: string, ...args: unknown[]): boolean {
  const [request] = args as [{ headers?: Record<string, string> } | undefined];
  if (event === "request" && request?.headers?.["x-throw"]) {
    setTimeout(() => {
      throw new Error("thrown by a request's timer");
    });
  }
  return Reflect.apply(emit, this, [event, ...args]);
};
