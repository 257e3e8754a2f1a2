import { create } from "@bufbuild/protobuf";
import { type RateLimit, RateLimitSchema } from "#gen/pinion/v1/watcher_pb.js";
import { exitCodes, Failure } from "../failures.ts";

/** Rate limits in their command-line notation. */

/**
 * Parses "anthropic=20" (starts per 60 s), or "anthropic" for a key without a rate, limited only by
 * delays reported by agents; undefined for an empty text.
 */
export function parseRate(text: string, option: string): RateLimit | undefined {
  if (text === "") return undefined;
  const [, key, count] = /^([^=]+?)\s*(?:=\s*(\d{1,9})(?:\/m(?:in)?)?)?$/.exec(text.trim()) ?? [];
  if (!key) throw new Failure(exitCodes.usage, `${option}: "${text}" is no rate limit; write "anthropic=20"`);
  return create(RateLimitSchema, { key, perMinute: Number(count ?? 0) });
}

export function formatRate({ key, perMinute }: { key: string; perMinute: number }): string {
  return perMinute > 0 ? `${key}=${perMinute}` : key;
}
