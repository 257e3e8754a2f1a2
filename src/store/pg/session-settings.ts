/**
 * What the code relies on and a database or a role may set otherwise (`ALTER DATABASE … SET`, `ALTER ROLE … SET`): how moments,
 * numbers and bytes are written, where tables are looked for, and what a statement that stands alone sees. Every
 * connection is opened with these, which goes before both. Options of the database's URL go before these.
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

/** As options of the message that opens a connection. */
export const openingOptions = Object.entries(relied)
  .map(([name, value]) => `-c ${name}=${value.replace(/[\\ ]/g, "\\$&")}`)
  .join(" ");

/** As statements at the beginning of a transaction, for connections whose pooler refuses options. */
export const localSettings = Object.entries(relied)
  // The transaction has its isolation level already.
  .filter(([name]) => name !== "default_transaction_isolation")
  .map(([name, value]) => `set local ${name} = '${value}'`)
  .join("; ");

/**
 * As parameters of the message that opens a connection. These are the ones that PgBouncer knows and keeps to for each of its
 * clients, also for a statement that stands alone.
 */
export const openingParameters = {
  DateStyle: relied.DateStyle,
  TimeZone: relied.TimeZone,
  standard_conforming_strings: relied.standard_conforming_strings,
} as const;

/** A default such as "TimeZone=Pacific/Chatham" is of a setting that the code relies on, and differs from what it relies on. */
export function isOtherwise(setting: string): boolean {
  const name = setting.slice(0, setting.indexOf("="));
  const value = setting.slice(name.length + 1);
  const own = Object.entries(relied).find(([candidate]) => candidate.toLowerCase() === name.toLowerCase());
  return own !== undefined && own[1] !== value;
}

/**
 * Reads whether a connection that was opened without {@link openingOptions} has defaults other than the code relies on. The
 * schemas that are searched count as they are found: the default, `"$user", public`, mostly means `public` alone.
 */
export const readOtherwise = `select ${[
  ...Object.entries(relied)
    .filter(([name]) => name !== "search_path")
    .map(([name, value]) => `current_setting('${name}') is distinct from '${value}'`),
  "current_schemas(false) is distinct from array['public']::name[]",
].join(" or ")} as is_otherwise`;
