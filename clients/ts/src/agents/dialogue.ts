import type { Readable, Writable } from "node:stream";
import { type ChildOptions, runChild } from "../runner/child.ts";
import type { Dialogue } from "./driver.ts";
import { type Line, LineSplitter } from "./lines.ts";

/** Time for a released program to end by itself, in ms. */
const RELEASE_GRACE_MS = 2_000;
/** Bound on unread input in bytes; beyond the bound the program is ended. */
const INPUT_BYTES_MAX = 32 * 1024 * 1024;

/** Starts a program with input and output in lines. */
export function openDialogue(
  child: Omit<ChildOptions, "onOutput" | "onPipes" | "stdin" | "timeoutMs" | "outputLimitBytes">,
  options: {
    input: string | undefined;
    isInputOnly: boolean;
    onLine: (line: Line) => void;
    onStderr: (data: Buffer) => void;
  },
): Dialogue {
  const own = new AbortController();
  const abort = () => own.abort(child.signal.reason);
  child.signal.addEventListener("abort", abort, { once: true });
  if (child.signal.aborted) abort();
  let pipes: { stdin: Writable; stdout: Readable } | undefined;
  let waiting: string[] = [];
  let isEnded = options.isInputOnly;
  let isReleased = false;
  let releaseTimer: NodeJS.Timeout | undefined;
  const lines = new LineSplitter(options.onLine);
  const ended = runChild({
    ...child,
    signal: own.signal,
    stdin: options.input,
    timeoutMs: undefined,
    // The line handler keeps the output.
    outputLimitBytes: 0,
    ...(options.isInputOnly
      ? {}
      : {
          onPipes: (opened) => {
            pipes = opened;
            for (const line of waiting) opened.stdin.write(line);
            waiting = [];
            if (isEnded) opened.stdin.end();
          },
        }),
    onOutput: (stream, data) => {
      if (stream === "stdout") lines.add(data);
      else options.onStderr(data);
    },
  }).then((end) => {
    clearTimeout(releaseTimer);
    child.signal.removeEventListener("abort", abort);
    lines.end();
    // A released program has done its work, so any end counts as success.
    const isOurs = isReleased && end.kind === "aborted" && !child.signal.aborted;
    return isOurs ? { ...end, kind: "exited" as const, exitCode: 0, signal: undefined } : end;
  });
  const end = () => {
    isEnded = true;
    pipes?.stdin.end();
  };
  return {
    write: (line) => {
      if (isEnded) return;
      if (pipes === undefined) waiting.push(`${line}\n`);
      else {
        pipes.stdin.write(`${line}\n`);
        if (pipes.stdin.writableLength > INPUT_BYTES_MAX) own.abort(new Error("it does not read its input"));
      }
    },
    end,
    release: () => {
      if (isReleased) return;
      isReleased = true;
      end();
      releaseTimer = setTimeout(() => own.abort(new Error("it was let go of")), RELEASE_GRACE_MS);
    },
    pause: () => pipes?.stdout.pause(),
    resume: () => pipes?.stdout.resume(),
    ended,
  };
}
