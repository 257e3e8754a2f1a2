import { createHash } from "node:crypto";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Completion, CompletionSchema } from "../gen/pinion/v1/device_pb.js";

/** A completion in its format on disk. */
export interface OutboxRecord {
  completion: Completion;
  /** Time of the program's end, in ms since the epoch, by the device's clock. */
  finishedAtMs: number;
}

const MAGIC = "pinion-outbox/1";
/** Records of any version; versions from 2 on are of newer daemons. */
const ANY_MAGIC = /^pinion-outbox\/\d{1,9} /;
/** First line: the magic, a space, the SHA-256 of everything after the line in hex, a line feed. */
const FIRST_LINE_BYTES = MAGIC.length + 1 + 64 + 1;

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

export function encodeRecord(record: OutboxRecord): Uint8Array {
  const meta = Buffer.from(`${JSON.stringify({ finishedAtMs: record.finishedAtMs })}\n`);
  const body = Buffer.concat([meta, toBinary(CompletionSchema, record.completion)]);
  return Buffer.concat([Buffer.from(`${MAGIC} ${sha256(body)}\n`), body]);
}

/** Why bytes are no record. `isNewer`: they are a record of a newer daemon. */
export interface NoRecord {
  problem: string;
  isNewer?: boolean;
}

/** Decodes a record or returns the problem. Never throws, for any bytes. */
export function decodeRecord(bytes: Uint8Array): OutboxRecord | NoRecord {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const magic = ANY_MAGIC.exec(buffer.toString("latin1", 0, 32))?.[0].trim();
  if (magic !== undefined && magic !== MAGIC) {
    const problem = `a newer daemon wrote it (${magic}); it stays, and that daemon delivers it: install it again`;
    return { problem, isNewer: true };
  }
  if (buffer.length < FIRST_LINE_BYTES) return { problem: "it is cut short" };
  const line = buffer.toString("latin1", 0, FIRST_LINE_BYTES);
  if (!line.startsWith(`${MAGIC} `) || !line.endsWith("\n")) return { problem: "it is not an outbox record" };
  const body = buffer.subarray(FIRST_LINE_BYTES);
  if (sha256(body) !== line.slice(MAGIC.length + 1, -1)) return { problem: "its checksum does not match" };
  try {
    const end = body.indexOf(0x0a);
    const meta: unknown = JSON.parse(body.toString("utf8", 0, end));
    const completion = fromBinary(CompletionSchema, body.subarray(end + 1));
    const finishedAtMs =
      typeof meta === "object" && meta !== null && "finishedAtMs" in meta ? Number(meta.finishedAtMs) : 0;
    return { completion, finishedAtMs };
  } catch (error) {
    return { problem: `it cannot be read: ${String(error)}` };
  }
}
