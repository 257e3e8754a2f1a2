/**
 * Messages that are no valid protobuf. The library that decodes messages gives up at the first
 * wrong byte, and a device would send the same completion again for ever. Here a completion is read
 * up to the wrong byte, so that the completion is answered like any completion that breaks a rule.
 */
import { create, mergeFromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { ConnectError } from "@connectrpc/connect";
import { type Completion, CompletionSchema, ConnectRequestSchema } from "#gen/pinion/v1/device_pb.js";
import { isUuid } from "../../../values/ids.ts";

const completionNumber = ConnectRequestSchema.field.complete.number;

/**
 * The completion in the bytes of an unreadable message, with the fields that precede the wrong
 * byte; undefined if the bytes hold no completion with its ids. Never throws.
 */
export function completionIn(bytes: Uint8Array): Completion | undefined {
  const inner = bytesOfCompletion(bytes);
  if (!inner) return undefined;
  const completion = create(CompletionSchema);
  try {
    mergeFromBinary(CompletionSchema, completion, inner);
  } catch {
    // The fields read so far are set.
  }
  return isUuid(completion.workId) && isUuid(completion.attemptToken) ? completion : undefined;
}

/**
 * The bytes of the field `complete`, without the bytes that its length promises and that are
 * missing.
 */
function bytesOfCompletion(bytes: Uint8Array): Uint8Array | undefined {
  const reader = new BinaryReader(bytes);
  try {
    while (reader.pos < reader.len) {
      const [number, wireType] = reader.tag();
      if (number !== completionNumber || wireType !== WireType.LengthDelimited) {
        reader.skip(wireType, number);
        continue;
      }
      const length = reader.uint32();
      return bytes.subarray(reader.pos, Math.min(bytes.length, reader.pos + length));
    }
  } catch {
    // No completion begins before the wrong byte.
  }
  return undefined;
}

/** What is wrong with the bytes, if an error of Connect says that a message is no protobuf. */
export function unreadableProblem(error: unknown): string | undefined {
  if (!(error instanceof ConnectError)) return undefined;
  const [, problem] = /^parse binary: (.*)$/s.exec(error.rawMessage) ?? [];
  return problem;
}
