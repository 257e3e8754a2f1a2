/**
 * The end of a daemon's log, on a person's request. The replica of the request rings the device's
 * session on any replica; the session's replica sends the log back in pieces that fit into
 * notifications. Nothing is stored: after a lost message the request ends with a time-out.
 *
 *   ask ──log_wanted──▶ session ─▶ device ─▶ arrived ──log_piece──▶ receive ─▶ answer of ask
 */
import { randomUUID } from "node:crypto";
import { Refusal } from "../../../errors.ts";
import { within } from "../../../time/abort.ts";
import type { Bus, BusMessage } from "../../cluster/bus.ts";

export type LogExcerptOf = { text: string; isTruncated: boolean };

export type DeviceLogs = {
  /**
   * Asks a device for the end of its log. Refuses with `unavailable` without an answer in time, and
   * with `resource_exhausted` while too many are asked.
   */
  ask(wanted: { orgId: string; deviceId: string; linesMax: number }): Promise<LogExcerptOf>;
  /** An excerpt of a local session, for the replica that asked. */
  arrived(excerpt: LogExcerptOf & { orgId: string; requestId: string; replyTo: string }): void;
  /** Takes another replica's piece; false if the message concerns something else. */
  receive(message: BusMessage): boolean;
};

/** Maximum milliseconds until the answer of a device. */
const answerMsMax = 15_000;
/** Maximum requests that wait for answers on a replica. */
const askedMax = 64;
/** Bytes of a piece before base64, so that a piece fits into one notification. */
const pieceBytes = 4_000;
/** Pieces of an excerpt: the message's bound of 32 KiB, and one more. */
const piecesMax = 10;

type LogPiece = Extract<BusMessage, { kind: "log_piece" }>;

type Asked = {
  orgId: string;
  pieces: Map<number, Buffer>;
  done: (excerpt: LogExcerptOf) => void;
};

export function createDeviceLogs(options: {
  replicaId: string;
  bus: Bus;
  ring(message: Extract<BusMessage, { kind: "log_wanted" }>): void;
}): DeviceLogs {
  const { replicaId, bus, ring } = options;
  const askedOf = new Map<string, Asked>();

  function take(piece: LogPiece): void {
    const asked = askedOf.get(piece.requestId);
    if (asked?.orgId !== piece.orgId || !isFit(piece)) return;
    asked.pieces.set(piece.index, Buffer.from(piece.data, "base64"));
    if (asked.pieces.size === piece.count) asked.done(excerptOf(asked.pieces, piece.isTruncated));
  }

  return {
    async ask({ orgId, deviceId, linesMax }) {
      if (askedOf.size >= askedMax) throw retriable("resource_exhausted", "too many logs are being read");
      const requestId = randomUUID();
      try {
        const answer = new Promise<LogExcerptOf>((done) => {
          askedOf.set(requestId, { orgId, pieces: new Map(), done });
        });
        ring({ kind: "log_wanted", orgId, deviceId, requestId, linesMax, replyTo: replicaId });
        const excerpt = await within(answer, answerMsMax);
        if (excerpt) return excerpt;
        throw retriable("unavailable", "the device did not send its log in time");
      } finally {
        askedOf.delete(requestId);
      }
    },
    arrived({ replyTo, ...excerpt }) {
      for (const piece of piecesOf(excerpt)) {
        if (replyTo === replicaId) take(piece);
        else bus.send(replyTo, piece);
      }
    },
    receive(message) {
      if (message.kind !== "log_piece") return false;
      take(message);
      return true;
    },
  };
}

function retriable(reason: "resource_exhausted" | "unavailable", message: string): Refusal {
  return new Refusal(reason, `${message}; try again`, { retryAfterMs: 1_000 });
}

function isFit({ index, count }: LogPiece): boolean {
  return count <= piecesMax && index >= 0 && index < count;
}

/** The excerpt of all pieces, which may have arrived in any order. */
function excerptOf(pieces: ReadonlyMap<number, Buffer>, isTruncated: boolean): LogExcerptOf {
  const inOrder = [...pieces].sort(([one], [other]) => one - other).map(([, bytes]) => bytes);
  return { text: Buffer.concat(inOrder).toString("utf8"), isTruncated };
}

function piecesOf(excerpt: LogExcerptOf & { orgId: string; requestId: string }): LogPiece[] {
  const { orgId, requestId, isTruncated } = excerpt;
  const bytes = Buffer.from(excerpt.text);
  const count = Math.max(1, Math.ceil(bytes.length / pieceBytes));
  return Array.from({ length: count }, (_, index) => {
    const data = bytes.subarray(index * pieceBytes, (index + 1) * pieceBytes).toString("base64");
    return { kind: "log_piece", orgId, requestId, index, count, data, isTruncated };
  });
}
