import * as credentials from "../../store/people/credentials/credentials.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Principal } from "./principal.ts";

/** `last_used_at` is right to about a minute. */
const usesFlushMs = 30_000;
/** Maximum number of tokens with a use to write; further uses are dropped until the next flush. */
const usesMax = 50_000;

/** The last uses of tokens, written together from time to time. */
export function createTokenUses(db: Db, log: Logger) {
  let uses = new Map<string, { orgId: string; tokenId: string }>();

  async function flush(): Promise<void> {
    const batch = [...uses.values()];
    uses = new Map();
    try {
      await credentials.recordUse(db, batch);
    } catch (error) {
      // The last use is only shown to people: the next flush writes a later use.
      log.warn({ err: error, tokens: batch.length }, "the last use of tokens was not written");
    }
  }

  let flushing = Promise.resolve();
  const timer = setInterval(() => {
    // One flush after another: closing waits for the running flush.
    flushing = flushing.then(flush);
  }, usesFlushMs).unref();

  return {
    /** Notes a use, and returns the user. */
    note(principal: Principal): Principal {
      const { orgId, tokenId } = principal;
      if (uses.size < usesMax) uses.set(tokenId, { orgId, tokenId });
      return principal;
    },
    /** Writes the waiting uses. */
    flush,
    /** Stops the timer and writes the waiting uses. */
    async close(): Promise<void> {
      clearInterval(timer);
      await flushing;
      await flush();
    },
  };
}
