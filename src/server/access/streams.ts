/**
 * The open streams of the replica by token: server streams and devices' own. A stream outlives its
 * admission, so the stream ends when its token ends: at once if the end is announced, otherwise at
 * the next check of all streams' tokens, in one statement.
 */

import * as credentials from "../../store/people/credentials/credentials.ts";
import type { Db } from "../../store/pg/database.ts";
import { type Looks, looksAlone } from "../../store/pg/looks.ts";
import type { Leaving } from "../../store/work/service/org-moves.ts";

export type OpenStream = {
  readonly orgId: string;
  readonly tokenId: string;
  /** The token has ended, or its org leaves the cell. Called once at most. */
  end(leaving?: Leaving): void;
};

export type Streams = {
  /** Until `remove`, which may be called again. */
  add(stream: OpenStream): void;
  remove(stream: OpenStream): void;
  /** Ends the streams opened with a token. */
  revoke(tokenId: string): void;
  /**
   * Ends the streams whose token was revoked or has expired without an announcement to the replica.
   */
  endExpired(): Promise<void>;
};

const allOf = (streams: OpenStream | Set<OpenStream> | undefined): Iterable<OpenStream> =>
  streams instanceof Set ? streams : streams ? [streams] : [];

export function createStreams({ db, looks = looksAlone(db) }: { db: Db; looks?: Looks }): Streams {
  /** A device's token has one stream; a fleet's token may have many. */
  const open = new Map<string, OpenStream | Set<OpenStream>>();
  /**
   * The tokens of `open`, encoded; undefined after a change. A replica of 10,000 idle streams asks
   * for the same 10,000 tokens every few seconds.
   */
  let held: { tokens: credentials.HeldTokens | undefined } | undefined;

  function remove(stream: OpenStream): void {
    const streams = open.get(stream.tokenId);
    if (streams instanceof Set ? !streams.delete(stream) || streams.size > 0 : streams !== stream) return;
    open.delete(stream.tokenId);
    held = undefined;
  }

  function end(tokenId: string, leaving?: Leaving): void {
    for (const stream of [...allOf(open.get(tokenId))]) {
      remove(stream);
      stream.end(leaving);
    }
  }

  function encode(): { tokens: credentials.HeldTokens | undefined } {
    const list = [...open.values()].flatMap((streams) => [...allOf(streams)].slice(0, 1));
    return { tokens: credentials.heldTokens(list) };
  }

  return {
    add(stream) {
      const streams = open.get(stream.tokenId);
      if (streams instanceof Set) streams.add(stream);
      else open.set(stream.tokenId, streams ? new Set([streams, stream]) : stream);
      if (!streams) held = undefined;
    },
    remove,
    revoke: (tokenId) => end(tokenId),
    async endExpired() {
      held ??= encode();
      if (!held.tokens) return;
      const ended = await looks.ask(credentials.ended(held.tokens));
      for (const [tokenId, leaving] of ended) end(tokenId, leaving);
    },
  };
}
