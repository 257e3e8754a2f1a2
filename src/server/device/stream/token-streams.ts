import { refuse } from "../../../errors.ts";
import type { Principal } from "../../access/principal.ts";
import type { Session } from "../session/session.ts";

/**
 * Maximum streams of a device's token per replica: the serving stream, and replaced streams that
 * have not noticed yet.
 */
const deviceStreamsMax = 4;
/** Maximum streams of a service's token per replica, equal to an org's maximum of fleet workers. */
export const workerStreamsMax = 1_000;
/** Maximum of them before their hello. */
const greetingStreamsMax = 16;

const retryAfterMs = 1_000;

/**
 * The streams of the replica by token, counted from before their hello: a single token must not use
 * up the room of all others, whatever it sends.
 */
export type TokenStreams = {
  /** Refuses with `resource_exhausted` a stream beyond the token's limit. */
  requireRoom(principal: Pick<Principal, "tokenId" | "deviceId">): void;
  /** Counts a stream until `remove`. */
  add(session: Counted): void;
  remove(session: Counted): void;
};

type Counted = Pick<Session, "tokenId" | "state">;

export function createTokenStreams(): TokenStreams {
  /** A device's token nearly always has one stream. */
  const open = new Map<string, Counted | Set<Counted>>();
  return {
    requireRoom({ tokenId, deviceId }) {
      const found = open.get(tokenId);
      if (!found) return;
      const streams = found instanceof Set ? found : new Set([found]);
      const [max, whose] =
        deviceId === null ? [workerStreamsMax, "a service's token"] : [deviceStreamsMax, "a device"];
      if (streams.size >= max) {
        refuse(
          "resource_exhausted",
          `${whose} has at most ${max} streams on a replica; close some, or wait until they have ended`,
          { retryAfterMs },
        );
      }
      let greeting = 0;
      for (const { state } of streams) if (state === "greeting") greeting += 1;
      if (greeting >= greetingStreamsMax) {
        refuse(
          "resource_exhausted",
          `${greetingStreamsMax} streams of the token have not said hello; send it at once on each, and connect again later`,
          { retryAfterMs },
        );
      }
    },
    add(session) {
      const { tokenId } = session;
      const streams = open.get(tokenId);
      if (streams instanceof Set) streams.add(session);
      else open.set(tokenId, streams ? new Set([streams, session]) : session);
    },
    remove(session) {
      const { tokenId } = session;
      const streams = open.get(tokenId);
      const isLast =
        streams instanceof Set ? streams.delete(session) && streams.size === 0 : streams === session;
      if (isLast) open.delete(tokenId);
    },
  };
}
