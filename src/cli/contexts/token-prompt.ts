import { exitCodes, Failure } from "../failures.ts";

/**
 * Reads a token typed or pasted by a person, without echo; without a terminal, the first line of
 * standard input.
 */
export async function askForToken(question: string): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY) return firstLine();
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

/** Maximum characters of a line that may be a token; tokens have far fewer. */
const lineCharactersMax = 10_000;

/** The first line of standard input; the rest is not read. */
async function firstLine(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8") as AsyncIterable<string>) {
    text += chunk;
    if (text.includes("\n") || text.length > lineCharactersMax) break;
  }
  return text.split("\n")[0]?.trim() ?? "";
}
