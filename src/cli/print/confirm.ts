import { createInterface } from "node:readline/promises";

/**
 * Asks a person; any answer other than yes, and the end of the input, is a no. The question goes to
 * standard error, not being part of the result. Rejects when the signal fires.
 */
export async function confirm(question: string, options: { signal: AbortSignal }): Promise<boolean> {
  const { signal } = options;
  signal.throwIfAborted();
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  const ended = new AbortController();
  // The readline interface receives Ctrl-C at the prompt, not the process.
  lines.once("SIGINT", () => process.emit("SIGINT"));
  lines.once("close", () => ended.abort());
  try {
    const answer = await lines.question(`${question} [y/N] `, {
      signal: AbortSignal.any([signal, ended.signal]),
    });
    return /^y(es)?$/i.test(answer.trim());
  } catch (error) {
    if (ended.signal.aborted && !signal.aborted) return false;
    throw error;
  } finally {
    lines.close();
  }
}

/** True if a person can be asked. */
export function canConfirm(isTerminal: boolean): boolean {
  return isTerminal && process.stdin.isTTY === true;
}
