import { create } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { dateOf } from "../../../../src/server/rpc/messages/moments.ts";

const read = (seconds: bigint, nanos: number) => dateOf(create(TimestampSchema, { seconds, nanos }), "since");

test("the first and the last moment of google.protobuf.Timestamp are dates", () => {
  expect(read(-62_135_596_800n, 0).toISOString()).toBe("0001-01-01T00:00:00.000Z");
  expect(read(253_402_300_799n, 999_999_999).toISOString()).toBe("9999-12-31T23:59:59.999Z");
});

test.each([
  [-62_135_596_801n, 0],
  [253_402_300_800n, 0],
  [253_402_300_799n, 2_000_000_000],
  [-62_135_596_800n, -1],
  [0n, -1],
  [0n, 1_000_000_000],
  [9_223_372_036_854_775_807n, 0],
])("%d s and %d ns are refused with the field", (seconds, nanos) => {
  expect(() => read(seconds, nanos)).toThrow(/^since: not a moment/);
});
