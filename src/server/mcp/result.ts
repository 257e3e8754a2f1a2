/** A tool's answer: JSON as text, or the reason of a refusal. */
import { ConnectError } from "@connectrpc/connect";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import { Refusal } from "../../errors.ts";
import { excerpt } from "../../values/excerpt.ts";

/** Maximum characters of an answer; an agent reads the whole text. */
const charactersMax = 100_000;

export async function answered(work: () => Promise<unknown>): Promise<CallToolResult> {
  try {
    const found = await work();
    const text = typeof found === "string" ? found : JSON.stringify(found, null, 2);
    return { content: [{ type: "text", text: excerpt(text, charactersMax) }] };
  } catch (error) {
    if (error instanceof Refusal) return refused(error.message);
    if (error instanceof ConnectError) return refused(error.rawMessage);
    // A failure's own words may hold addresses of the database, and are not the caller's.
    return refused("Pinion could not do it now; try again");
  }
}

const refused = (text: string): CallToolResult => ({ isError: true, content: [{ type: "text", text }] });
