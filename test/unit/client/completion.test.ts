import { toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Completion, CompletionSchema, Outcome } from "#gen/pinion/v1/device_pb.js";
import {
  completionOf,
  fitCompletion,
  truncateUtf8,
} from "../../../clients/ts/src/device/results/completion.ts";

const bytesOf = (completion: Completion) => toBinary(CompletionSchema, completion).length;

test("a text is cut to the longest prefix of whole characters that fits", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 60 }), fc.nat(200), (text, bytesMax) => {
      const { text: cut, isTruncated } = truncateUtf8(text, bytesMax);
      expect(text.startsWith(cut)).toBe(true);
      expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(bytesMax);
      expect(isTruncated).toBe(cut !== text);
      const rest = [...text.slice(cut.length)][0];
      if (rest !== undefined) expect(Buffer.byteLength(cut + rest)).toBeGreaterThan(bytesMax);
    }),
  );
});

test("a snapshot that no message of this session can hold fails its turn; one that fits leaves the output less room", () => {
  const attempt = { workId: "r", attemptToken: "t" };
  const result = {
    outcome: "completed" as const,
    output: "x".repeat(60_000),
    nextSnapshot: new Uint8Array(40_000),
  };
  const limits = {
    messageBytesMax: 100_000,
    completionOutputBytesMax: 1_048_576,
    outputChunkBytesMax: 32_768,
  };
  const fitting = fitCompletion(completionOf(attempt, result, 1), limits);
  expect(fitting).toMatchObject({ outcome: Outcome.COMPLETED, isOutputTruncated: true });
  expect(fitting.nextSnapshot).toHaveLength(40_000);
  expect(bytesOf(fitting)).toBeLessThanOrEqual(limits.messageBytesMax);
  const failed = fitCompletion(completionOf(attempt, result, 1), { ...limits, messageBytesMax: 40_000 });
  expect(failed.outcome).toBe(Outcome.FAILED);
  expect(failed.reason).toContain("larger than what this server takes");
  expect(failed.nextSnapshot).toBeUndefined();
  expect(bytesOf(failed)).toBeLessThanOrEqual(40_000);
});
