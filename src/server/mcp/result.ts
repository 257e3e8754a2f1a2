/** What a tool answers: JSON as text, or why not. */
import { ConnectError } from "@connectrpc/connect";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import { Refusal } from "../../errors.ts";
import { excerpt } from "../../excerpt.ts";

/** An agent reads all of it. */
const charactersMax = 100_000;

export async function answered(work: () => Promise<unknown>): Promise<CallToolResult> {
  try {
    const found = await work();
    const text = typeof found === "string" ? found : JSON.stringify(found, null, 2);
    return { content: [{ type: "text", text: excerpt(text, charactersMax) }] };
  } catch (error) {
    // What was understood and turned down is the agent's to read; what failed is no answer.
    if (error instanceof Refusal) return refused(error.message);
    if (error instanceof ConnectError) return refused(error.rawMessage);
    throw error;
  }
}

const refused = (text: string): CallToolResult => ({ isError: true, content: [{ type: "text", text }] });
