import type { Statement } from "./joined.ts";

/**
 * Settings that the code relies on and that a database or a role may set differently (`ALTER
 * DATABASE … SET`, `ALTER ROLE … SET`): formats of times, numbers and bytes, the search path, and
 * the isolation of single statements. Every connection is opened with the settings, which take
 * precedence over both. Options in the database's URL take precedence over the settings.
 */
const relied = {
  DateStyle: "ISO, MDY",
  IntervalStyle: "postgres",
  TimeZone: "UTC",
  extra_float_digits: "1",
  standard_conforming_strings: "on",
  bytea_output: "hex",
  search_path: "public",
  default_transaction_isolation: "read committed",
  row_security: "on",
  array_nulls: "on",
  transform_null_equals: "off",
  lock_timeout: "0",
} as const;

/** As options of the startup message. */
export const openingOptions = Object.entries(relied)
  .map(([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, "\\$&")}`)
  .join(" ");

/**
 * As a statement at the beginning of a transaction, with the transaction's limits, for connections
 * whose pooler refuses options.
 */
export function settingsOf(limits: Readonly<Record<string, number>>): Statement {
  const settings = Object.entries({ ...limits, ...relied })
    // The transaction has its isolation level already.
    .filter(([name]) => name !== "default_transaction_isolation")
    .map(([name, value]) => `set_config('${name}', '${value}', true)`);
  return { text: `select ${settings.join(", ")}` };
}

/**
 * As parameters of the startup message: the settings that PgBouncer tracks for each of its clients,
 * also for single statements.
 */
export const openingParameters = {
  DateStyle: relied.DateStyle,
  TimeZone: relied.TimeZone,
  standard_conforming_strings: relied.standard_conforming_strings,
} as const;

/**
 * Whether a default such as "TimeZone=Pacific/Chatham" differs from the value that the code relies
 * on.
 */
export function isOtherwise(setting: string): boolean {
  const name = setting.slice(0, setting.indexOf("="));
  const value = setting.slice(name.length + 1);
  const own = Object.entries(relied).find(([candidate]) => candidate.toLowerCase() === name.toLowerCase());
  return own !== undefined && own[1] !== value;
}

/**
 * Reads whether a connection opened without {@link openingOptions} has other defaults than
 * required. The search path is compared by its effect: the default, `"$user", public`, mostly means
 * `public` alone.
 */
export const readOtherwise = `select ${[
  ...Object.entries(relied)
    .filter(([name]) => name !== "search_path")
    .map(([name, value]) => `current_setting('${name}') is distinct from '${value}'`),
  "current_schemas(false) is distinct from array['public']::name[]",
].join(" or ")} as is_otherwise`;
