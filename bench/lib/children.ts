import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { builtReplica } from "./built-replica.ts";

/** A process of the bench that receives messages and answers each in turn. */
export type Child = {
  pid: number;
  process: ChildProcess;
  ask<Answer>(question: Record<string, unknown>): Promise<Answer>;
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Lets the process end by itself. */
  leave(): Promise<void>;
};

/** Node's options of a replica, as in the image (Dockerfile). */
export const replicaNodeOptions = ["--max-semi-space-size=32"];

/**
 * Starts `bench/<file>`, a replica as it is built (built-replica.ts), with answers `{ answer }` or
 * `{ error }`.
 */
export async function startChild(
  file: string,
  env: Record<string, string> = {},
  execArgv: string[] = [],
): Promise<Child> {
  const isReplica = file === "replica.ts";
  const path = isReplica ? await builtReplica() : fileURLToPath(new URL(`../${file}`, import.meta.url));
  const child = fork(path, [], {
    env: { ...process.env, ...env },
    execArgv: isReplica ? [...replicaNodeOptions, ...execArgv] : execArgv,
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    serialization: "advanced",
  });
  const waiting: { resolve: (answer: never) => void; reject: (error: Error) => void }[] = [];
  child.on("message", (message: { answer?: unknown; error?: string }) => {
    const next = waiting.shift();
    if (message.error === undefined) next?.resolve(message.answer as never);
    else next?.reject(new Error(message.error));
  });
  const ended = once(child, "exit").then(() => {
    for (const { reject } of waiting.splice(0)) reject(new Error(`${file} ended`));
  });
  return {
    pid: child.pid!,
    process: child,
    ask: (question) =>
      new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
        child.send(question);
      }),
    async leave() {
      child.disconnect();
      await ended;
    },
    async kill(signal = "SIGKILL") {
      child.kill(signal);
      await ended;
    },
  };
}

/** The other end: answers questions one after the other. */
export function answerQuestions<Question>(answer: (question: Question) => Promise<unknown>): void {
  let last = Promise.resolve();
  process.on("message", (question: Question) => {
    last = last.then(async () => {
      try {
        process.send!({ answer: await answer(question) });
      } catch (error) {
        process.send!({ error: (error as Error).stack ?? String(error) });
      }
    });
  });
  process.on("disconnect", () => process.exit(0));
}
