import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CompletionSchema, Outcome } from "#gen/pinion/v1/device_pb.js";
import { decodeRecord, encodeRecord } from "../../../clients/ts/src/outbox/record.ts";

const record = {
  finishedAtMs: 1_795_000_000_000.25,
  completion: create(CompletionSchema, {
    workId: "0190b6a0-0000-7000-8000-00000000000a",
    attemptToken: "0190b6a0-0000-7000-8000-00000000000b",
    outcome: Outcome.COMPLETED,
    output: "done: é€😀\n\0",
    exitCode: 0,
  }),
};

test("a record is read as it was written", () => {
  expect(decodeRecord(encodeRecord(record))).toEqual(record);
});

test("a record torn at any byte is told from a whole one", () => {
  const bytes = encodeRecord(record);
  for (let length = 0; length < bytes.length; length++) {
    expect(decodeRecord(bytes.subarray(0, length))).toHaveProperty("problem");
  }
});

test("a record with any one bit turned over is told from a whole one", () => {
  const bytes = encodeRecord(record);
  for (let index = 0; index < bytes.length; index++) {
    const damaged = Uint8Array.from(bytes);
    damaged[index] = (damaged[index] ?? 0) ^ (1 << (index % 8));
    expect(decodeRecord(damaged)).toHaveProperty("problem");
  }
});

test("whatever bytes there are, they are answered", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      expect(decodeRecord(bytes)).toHaveProperty("problem");
    }),
  );
});
