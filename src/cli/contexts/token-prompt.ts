import { text } from "node:stream/consumers";
import { exitCodes, Failure } from "../failures.ts";

/**
 * Reads a token typed or pasted by a person, without echo; without a terminal, the first line of
 * standard input.
 */
export async function askForToken(question: string): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY) return (await text(stdin)).split("\n")[0]?.trim() ?? "";
  stderr.write(question);
  stdin.setRawMode(true);
  stdin.setEncoding("utf8");
  let typed = "";
  try {
    for await (const chunk of stdin as AsyncIterable<string>) {
      for (const key of chunk) {
        if (key === "\r" || key === "\n" || key === "\u0004") return typed.trim();
        if (key === "\u0003") throw new Failure(exitCodes.interrupted, "stopped before a token was given");
        if (key === "\u007f" || key === "\b") typed = typed.slice(0, -1);
        else if (key >= " ") typed += key;
      }
    }
    return typed.trim();
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write("\n");
  }
}
