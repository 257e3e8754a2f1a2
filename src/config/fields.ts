import { z } from "zod";

/** The parsed settings of an area. */
export type SettingsOf<Shape extends z.ZodRawShape> = z.infer<z.ZodObject<Shape>>;

/**
 * Everything that is configured, read once from the environment. No file of the server but
 * environment.ts reads `process.env`. Every setting states its meaning, default and unit in
 * `describe`; the reference in docs is made from that.
 */

export const milliseconds = (fallback: number, meaning: string) =>
  z.coerce.number().int().min(1).max(2_147_483_647).default(fallback).describe(`${meaning} (milliseconds)`);

export const count = (fallback: number, min: number, max: number, meaning: string) =>
  z.coerce.number().int().min(min).max(max).default(fallback).describe(meaning);

/** "10s", "1m30s", or a number of seconds. */
export const length = (fallback: string, meaning: string) =>
  z
    .string()
    .regex(/^(\d+|(\d+(ms|s|m|h))+)$/, "must be a length of time such as 10s or 1m")
    .default(fallback)
    .describe(meaning);

const unitsMs: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

export function lengthMs(text: string): number {
  if (/^\d+$/.test(text)) return Number(text) * 1_000;
  return [...text.matchAll(/(\d+)(ms|s|m|h)/g)].reduce(
    (sum, [, count, unit = ""]) => sum + Number(count) * (unitsMs[unit] ?? 0),
    0,
  );
}
