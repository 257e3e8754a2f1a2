/**
 * The open streams of the replica by token: server streams and devices' own. A stream outlives its
 * admission, so the stream ends when its token ends: at once if the end is announced, otherwise at
 * the next check of all streams' tokens, in one statement.
 */

import * as credentials from "../../store/people/credentials.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Leaving } from "../../store/work/org-moves.ts";

export type OpenStream = {
  readonly orgId: string;
  readonly tokenId: string;
  /** The token has ended, or its org leaves the cell. Called once at most. */
  end(leaving?: Leaving): void;
};

export type Streams = {
  /** Until the returned function is called. */
  add(stream: OpenStream): () => void;
  /** Ends the streams opened with a token. */
  revoke(tokenId: string): void;
  /**
   * Ends the streams whose token was revoked or has expired without an announcement to the replica.
   */
  endExpired(): Promise<void>;
};

export function createStreams(options: { db: Db }): Streams {
  const open = new Set<OpenStream>();

  function end(isMeant: (stream: OpenStream) => boolean, leaving?: Leaving): void {
    for (const stream of [...open].filter(isMeant)) if (open.delete(stream)) stream.end(leaving);
  }

  return {
    add(stream) {
      open.add(stream);
      return () => void open.delete(stream);
    },
    revoke: (tokenId) => end((stream) => stream.tokenId === tokenId),
    async endExpired() {
      // Many streams may share a token.
      const held = new Map([...open].map(({ orgId, tokenId }) => [tokenId, { orgId, tokenId }]));
      const ended = await credentials.findEnded(options.db, [...held.values()]);
      for (const [tokenId, leaving] of ended) end((stream) => stream.tokenId === tokenId, leaving);
    },
  };
}
