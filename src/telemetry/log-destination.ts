/**
 * Where lines of a log go: a descriptor, and no promise that they arrive. A log that cannot be
 * written (its reader is gone, its disk is full) costs lines, never the process: pino's own
 * destination throws at the first such line, and tries again for ever when the process ends.
 */
import { write, writeSync } from "node:fs";
import type { DestinationStream } from "pino";

/** Bytes that wait for a slow reader; further lines are dropped. */
const waitingBytesMax = 16 * 1024 * 1024;
/** The pause in ms before a reader that takes nothing now is asked again. */
const againMs = 100;

export class LogDestination implements DestinationStream {
  readonly #descriptor: number;
  #lines: string[] = [];
  #waitingBytes = 0;
  #isWriting = false;
  #lost = 0;
  /** Called after the first line that arrives again, with the number of lost lines. */
  onGap: ((lines: number) => void) | undefined;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
    process.once("exit", () => this.flushSync());
  }

  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    if (this.#waitingBytes + bytes > waitingBytesMax) {
      this.#lost += 1;
      return;
    }
    this.#lines.push(line);
    this.#waitingBytes += bytes;
    if (!this.#isWriting) this.#next();
  }

  /** Writes what waits, in one attempt: the process ends, and waits for nobody. */
  flushSync(): void {
    const rest = Buffer.from(this.#take().join(""));
    try {
      for (let at = 0; at < rest.length; ) at += writeSync(this.#descriptor, rest, at);
    } catch {
      // Nobody is left to tell.
    }
  }

  #take(): string[] {
    const lines = this.#lines;
    this.#lines = [];
    this.#waitingBytes = 0;
    return lines;
  }

  #next(): void {
    const lines = this.#take();
    this.#isWriting = lines.length > 0;
    if (this.#isWriting) this.#send(Buffer.from(lines.join("")), lines.length);
  }

  #send(rest: Buffer, lines: number): void {
    write(this.#descriptor, rest, (error, written) => {
      if (error?.code === "EAGAIN") setTimeout(() => this.#send(rest, lines), againMs).unref();
      else if (error) this.#end(lines);
      else if (written < rest.length) this.#send(rest.subarray(written), lines);
      else this.#end(0);
    });
  }

  #end(lost: number): void {
    this.#lost += lost;
    if (lost === 0 && this.#lost > 0) {
      const gap = this.#lost;
      this.#lost = 0;
      this.onGap?.(gap);
    }
    this.#next();
  }
}

let standardError: LogDestination | undefined;

/** Standard error of this process, shared by its loggers. */
export function standardErrorLog(): LogDestination {
  standardError ??= new LogDestination(2);
  return standardError;
}
