/**
 * The streams of this replica that a token holds open: server streams and devices' own. A stream outlives the moment in
 * which its call was admitted, so it ends when its token does: at once when that is announced, and otherwise when the
 * tokens of all streams are looked at the next time, in one statement.
 */

import * as tokens from "../../store/people/tokens.ts";
import type { Db } from "../../store/pg/database.ts";

export type OpenStream = {
  readonly orgId: string;
  readonly tokenId: string;
  /** The token is good no more. Called once at most. */
  end(): void;
};

export type Streams = {
  /** Until the returned function is called. */
  add(stream: OpenStream): () => void;
  /** Ends the streams that a token opened. */
  revoke(tokenId: string): void;
  /** Ends the streams whose token was revoked or has expired without this replica hearing of it. */
  endExpired(): Promise<void>;
};

export function createStreams(options: { db: Db }): Streams {
  const open = new Set<OpenStream>();

  function end(isMeant: (stream: OpenStream) => boolean): void {
    for (const stream of [...open].filter(isMeant)) if (open.delete(stream)) stream.end();
  }

  return {
    add(stream) {
      open.add(stream);
      return () => void open.delete(stream);
    },
    revoke: (tokenId) => end((stream) => stream.tokenId === tokenId),
    async endExpired() {
      // Many streams may have one token.
      const held = new Map([...open].map(({ orgId, tokenId }) => [tokenId, { orgId, tokenId }]));
      const ended = await tokens.findEnded(options.db, [...held.values()]);
      if (ended.size > 0) end((stream) => ended.has(stream.tokenId));
    },
  };
}
