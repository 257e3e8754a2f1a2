import { toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { PinionError } from "@pinion/client";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.js";
import {
  type BatchUpsertPlatformsResult,
  type UpsertPlatformRequest,
  UpsertPlatformRequestSchema,
  type UpsertPlatformResponse,
} from "#gen/pinion/v1/agent_pb.js";
import type { Clients } from "../../context.ts";

/**
 * Bounds of a batch in platforms and bytes: a call with an answer for each platform returns soon
 * and fits the server's limit.
 */
const platformsPerBatchMax = 100;
const batchBytesMax = 1024 * 1024;
/** Maximum of concurrent batches. */
export const batchesMax = 2;

export type Draft<Item> = { item: Item; request: UpsertPlatformRequest };

/** Splits drafts into batches within the bounds, in order. */
export function batchesOf<Item>(drafts: readonly Draft<Item>[]): Draft<Item>[][] {
  const batches: Draft<Item>[][] = [];
  let bytes = 0;
  for (const draft of drafts) {
    const size = toBinary(UpsertPlatformRequestSchema, draft.request).length;
    const last = batches.at(-1);
    if (last && last.length < platformsPerBatchMax && bytes + size <= batchBytesMax) {
      last.push(draft);
      bytes += size;
    } else {
      batches.push([draft]);
      bytes = size;
    }
  }
  return batches;
}

/**
 * Upserts all platforms of a batch by one call and calls `each` per platform; `settle` returns the
 * platform's answer or throws its error. Falls back to single calls if a platform breaks its field
 * rules (the server then refuses the whole call) or if the server has no batch call.
 */
export async function upsertBatch<Item>(
  clients: Clients,
  batch: readonly Draft<Item>[],
  options: { signal?: AbortSignal },
  each: (item: Item, settle: () => Promise<UpsertPlatformResponse>) => Promise<void>,
): Promise<void> {
  const results = await resultsOf(clients, batch, options);
  for (const [index, { item, request }] of batch.entries()) {
    await each(item, async () => {
      const kind = results?.[index]?.kind;
      if (kind?.case === "done") return kind.value;
      if (kind?.case !== "refused") return clients.agents.upsertPlatform(request, options);
      const { code, message, field } = kind.value;
      const error = new ConnectError(message, code);
      if (field !== "") {
        const value = { fieldViolations: [{ field, description: message }] };
        error.details.push({ desc: BadRequestSchema, value });
      }
      throw new PinionError(error);
    });
  }
}

async function resultsOf<Item>(
  clients: Clients,
  batch: readonly Draft<Item>[],
  options: { signal?: AbortSignal },
): Promise<BatchUpsertPlatformsResult[] | undefined> {
  try {
    const platforms = batch.map(({ request }) => request);
    return (await clients.agents.batchUpsertPlatforms({ platforms }, options)).results;
  } catch (error) {
    const isWhole = error instanceof ConnectError && oneByOne.has(error.code);
    if (!isWhole) throw error;
    return undefined;
  }
}

const oneByOne = new Set([Code.InvalidArgument, Code.Unimplemented]);
