import type { Readable, Writable } from "node:stream";
import { type ChildOptions, runChild } from "../../runner/child.ts";
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
  const input = new LineInput({
    isEnded: options.isInputOnly,
    onOverflow: () => own.abort(new Error("it does not read its input")),
  });
  let stdout: Readable | undefined;
  let isReleased = false;
  let releaseTimer: NodeJS.Timeout | undefined;
  const lines = new LineSplitter(options.onLine);
  const onPipes = (opened: { stdin: Writable; stdout: Readable }) => {
    stdout = opened.stdout;
    input.attach(opened.stdin);
  };
  const ended = runChild({
    ...child,
    signal: own.signal,
    stdin: options.input,
    timeoutMs: undefined,
    // The line handler keeps the output.
    outputLimitBytes: 0,
    ...(options.isInputOnly ? {} : { onPipes }),
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
  return {
    // A program that is being ended is told nothing: the default answer of a cancelled run's
    // question would let the program go on, and report a result.
    write: (line) => void (own.signal.aborted || input.write(line)),
    end: () => input.end(),
    release: () => {
      if (isReleased) return;
      isReleased = true;
      input.end();
      releaseTimer = setTimeout(() => own.abort(new Error("it was let go of")), RELEASE_GRACE_MS);
    },
    ...{ ended, pause: () => stdout?.pause(), resume: () => stdout?.resume() },
  };
}

/** The lines to a program's stdin; lines before the start wait for the pipe. */
class LineInput {
  #stdin: Writable | undefined;
  #waiting: string[] = [];
  #isEnded: boolean;
  readonly #onOverflow: () => void;

  constructor(options: { isEnded: boolean; onOverflow: () => void }) {
    this.#isEnded = options.isEnded;
    this.#onOverflow = options.onOverflow;
  }

  attach(stdin: Writable): void {
    this.#stdin = stdin;
    for (const line of this.#waiting) stdin.write(line);
    this.#waiting = [];
    if (this.#isEnded) stdin.end();
  }

  write(line: string): void {
    if (this.#isEnded) return;
    if (this.#stdin === undefined) {
      this.#waiting.push(`${line}\n`);
      return;
    }
    this.#stdin.write(`${line}\n`);
    if (this.#stdin.writableLength > INPUT_BYTES_MAX) this.#onOverflow();
  }

  end(): void {
    this.#isEnded = true;
    this.#stdin?.end();
  }
}
