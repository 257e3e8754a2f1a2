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
import type { Clients } from "../context.ts";

/** Platforms of one call, and their size: a call with an answer for each comes back soon, and fits the server's limit. */
const platformsPerBatchMax = 100;
const batchBytesMax = 1024 * 1024;
/** Batches under way at once. */
export const batchesMax = 2;

export type Draft<Item> = { item: Item; request: UpsertPlatformRequest };

/** In batches of what one call takes, in their order. */
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
 * Asks for all platforms of a batch by one call, and tells `each` of its answer, which `settle` returns or throws. One by
 * one if a platform breaks the rules of its fields, which refuses the call as a whole, or the server knows no batches.
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
