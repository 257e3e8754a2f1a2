/**
 * The ends of daemons' logs, on a person's request: asked of the device's session on any replica,
 * and brought back in pieces that fit into notifications. Nothing is stored, everything is a hint:
 * a lost message ends as a time-out.
 */
import { randomUUID } from "node:crypto";
import { within } from "../../abort.ts";
import { Refusal } from "../../errors.ts";
import type { Bus, BusMessage } from "../cluster/bus.ts";

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

/** How long an answer may take, in ms. */
const answerMsMax = 15_000;
const askedMax = 64;
/** Bytes of a piece before base64, so that a piece fits into one notification. */
const pieceBytes = 4_000;
/** Pieces of an excerpt: the message's bound of 32 KiB, and one more. */
const piecesMax = 10;

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
  const asked = new Map<string, Asked>();

  function take(piece: Extract<BusMessage, { kind: "log_piece" }>): void {
    const waiting = asked.get(piece.requestId);
    const isFit =
      waiting?.orgId === piece.orgId &&
      piece.count <= piecesMax &&
      piece.index >= 0 &&
      piece.index < piece.count;
    if (!waiting || !isFit) return;
    waiting.pieces.set(piece.index, Buffer.from(piece.data, "base64"));
    if (waiting.pieces.size < piece.count) return;
    const bytes = Array.from({ length: piece.count }, (_, index) => waiting.pieces.get(index)!);
    waiting.done({ text: Buffer.concat(bytes).toString("utf8"), isTruncated: piece.isTruncated });
  }

  return {
    async ask({ orgId, deviceId, linesMax }) {
      if (asked.size >= askedMax) {
        throw new Refusal("resource_exhausted", "too many logs are being read; try again", {
          retryAfterMs: 1_000,
        });
      }
      const requestId = randomUUID();
      try {
        const answer = new Promise<LogExcerptOf>((done) => {
          asked.set(requestId, { orgId, pieces: new Map(), done });
        });
        ring({ kind: "log_wanted", orgId, deviceId, requestId, linesMax, replyTo: replicaId });
        const excerpt = await within(answer, answerMsMax);
        if (excerpt) return excerpt;
        throw new Refusal("unavailable", "the device did not send its log in time; try again", {
          retryAfterMs: 1_000,
        });
      } finally {
        asked.delete(requestId);
      }
    },
    arrived({ orgId, requestId, replyTo, text, isTruncated }) {
      const bytes = Buffer.from(text);
      const count = Math.max(1, Math.ceil(bytes.length / pieceBytes));
      for (let index = 0; index < count; index++) {
        const data = bytes.subarray(index * pieceBytes, (index + 1) * pieceBytes).toString("base64");
        const piece = { kind: "log_piece" as const, orgId, requestId, index, count, data, isTruncated };
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
