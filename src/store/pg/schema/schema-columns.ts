/**
 * The types of columns. `int8` arrives as a number, `timestamptz` as a Date (without microseconds:
 * never compare a Date for equality), `jsonb` as an object.
 */
import type { ColumnType } from "kysely";

export type Timestamp = ColumnType<Date, Date | string, Date | string>;
export type TimestampOrNull = ColumnType<Date | null, Date | string | null | undefined, Date | string | null>;
export type GeneratedTimestamp = ColumnType<Date, Date | string | undefined, Date | string>;
/** A nullable column; an insert may leave it out. */
export type OrNull<T> = ColumnType<T | null, T | null | undefined, T | null>;
/** An object; pg serializes it as JSON. */
export type JsonObject<T extends object> = ColumnType<T, T | string, T | string>;
export type GeneratedJsonObject<T extends object> = ColumnType<T, T | string | undefined, T | string>;
/** pg would write a JavaScript array as a PostgreSQL array, so a JSON array goes in as text. */
export type JsonArray<T> = ColumnType<T[], string, string>;
export type GeneratedJsonArray<T> = ColumnType<T[], string | undefined, string>;

// biome-ignore lint/suspicious/noExplicitAny: the writer of a JSON column decides its content.
export type Json = { [key: string]: any };
