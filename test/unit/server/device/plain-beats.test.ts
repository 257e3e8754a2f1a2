import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ConnectRequestSchema, ConnectResponseSchema, HeartbeatSchema } from "#gen/pinion/v1/device_pb.js";
import {
  beatAckFrame,
  framed,
  isPlainList,
  plainBeatOf,
} from "../../../../src/server/device/stream/grpc-frames.ts";
import { createRandom } from "../../../support/random.ts";

const sequences = [1n, 127n, 128n, 300n, 2n ** 31n, 2n ** 53n + 1n, 2n ** 63n - 1n, -1n];

const attempts = Array.from({ length: 40 }, () => ({
  runId: crypto.randomUUID(),
  attemptToken: crypto.randomUUID(),
}));

const beat = (sequence: bigint, count: number) =>
  toBinary(
    ConnectRequestSchema,
    create(ConnectRequestSchema, {
      message: { case: "heartbeat", value: { sequence, attempts: attempts.slice(0, count) } },
    }),
  );

test("a heartbeat is cut into its sequence and its attempts, with any number of attempts", () => {
  for (const count of [0, 1, 2, 40]) {
    const listed = toBinary(HeartbeatSchema, create(HeartbeatSchema, { attempts: attempts.slice(0, count) }));
    for (const sequence of sequences) {
      const plain = plainBeatOf(beat(sequence, count))!;
      const encoded = new Uint8Array([8, ...plain.sequence]);
      expect(fromBinary(HeartbeatSchema, encoded).sequence).toBe(sequence);
      expect(plain.listed).toEqual(listed);
    }
  }
});

test("other messages, and heartbeats of another form, are left to protobuf", () => {
  const whole = beat(5n, 1);
  const accept = create(ConnectRequestSchema, { message: { case: "accept", value: attempts[0]! } });
  const others = [
    new Uint8Array(),
    toBinary(ConnectRequestSchema, accept),
    beat(0n, 0),
    // Attempts before the sequence; a second sequence; an unknown field; a second message.
    new Uint8Array([0x12, 4, 0x12, 0, 0x08, 5]),
    new Uint8Array([0x12, 4, 0x08, 5, 0x08, 6]),
    new Uint8Array([0x12, 4, 0x08, 5, 0x18, 6]),
    new Uint8Array([...whole, ...whole]),
    // A varint without an end.
    new Uint8Array([0x12, 12, 0x08, ...Array(11).fill(0xff)]),
    new Uint8Array([0x12, 0xff, 0xff, 0xff, 0xff]),
    ...Array.from({ length: whole.length - 1 }, (_, length) => whole.subarray(0, length)),
  ];
  for (const bytes of others) expect(plainBeatOf(bytes)).toBeUndefined();
});

test("the answer to a heartbeat is the frame that protobuf makes", () => {
  for (const sequence of sequences) {
    for (const nowMs of [0, 999, 1_000, 1_780_000_000_000, 1_780_000_000_001, 4_102_444_800_999]) {
      const message = create(ConnectResponseSchema, {
        message: { case: "heartbeatAck", value: { sequence, serverTime: timestampFromMs(nowMs) } },
      });
      const frame = beatAckFrame(plainBeatOf(beat(sequence, 0))!.sequence, nowMs);
      const expected = framed(toBinary(ConnectResponseSchema, message));
      if (nowMs >= 1_000) expect(frame).toEqual(expected);
      expect(fromBinary(ConnectResponseSchema, frame.subarray(5))).toEqual(message);
    }
  }
});

/** What the library reads; undefined if it reads nothing. */
function readByLibrary(bytes: Uint8Array) {
  try {
    return fromBinary(ConnectRequestSchema, bytes).message;
  } catch {
    return undefined;
  }
}

test("whatever the bytes, a beat that is recognised says what the library reads in them", () => {
  const random = createRandom(20);
  const counts = { cut: 0, recognised: 0, left: 0 };
  for (let round = 0; round < 10_000; round++) {
    const bytes = [...beat(random.pick(sequences), random.whole(0, 2))];
    for (let changes = random.whole(0, 3); changes > 0; changes--) {
      const at = random.whole(0, bytes.length);
      bytes.splice(at, random.whole(0, 2), ...random.bytes(random.whole(0, 2)));
    }
    const plain = plainBeatOf(Uint8Array.from(bytes));
    if (!plain) continue;
    counts.cut++;
    const read = readByLibrary(Uint8Array.from(bytes));
    // A beat without attempts is recognised without an earlier one.
    const isRecognised =
      plain.listed.length === 0 ||
      (read?.case === "heartbeat" && isPlainList(plain.listed, read.value.attempts));
    if (!isRecognised) {
      counts.left++;
      continue;
    }
    counts.recognised++;
    const parts = new Uint8Array([8, ...plain.sequence, ...plain.listed]);
    expect(read).toEqual({ case: "heartbeat", value: fromBinary(HeartbeatSchema, parts) });
    expect(fromBinary(HeartbeatSchema, plain.listed).sequence).toBe(0n);
  }
  expect(Math.min(counts.recognised, counts.left)).toBeGreaterThan(300);
});

test("a list with an unknown field, a second sequence or a longer length is left to protobuf", () => {
  const plain = toBinary(HeartbeatSchema, create(HeartbeatSchema, { attempts: attempts.slice(0, 1) }));
  const longer = [plain[0] ?? 0, (plain[1] ?? 0) | 0x80, 0, ...plain.subarray(2)];
  const read = (bytes: Iterable<number>) => fromBinary(HeartbeatSchema, Uint8Array.from(bytes)).attempts;
  expect(isPlainList(plain, read(plain))).toBe(true);
  for (const bytes of [[...plain, 0x08, 9], [...plain, 0x18, 6], longer]) {
    expect(read(bytes)).toHaveLength(1);
    expect(isPlainList(Uint8Array.from(bytes), read(bytes))).toBe(false);
  }
});
