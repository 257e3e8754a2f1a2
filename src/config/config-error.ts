/** Thrown for missing or wrong settings; the message names every one of them. */
export class ConfigError extends Error {
  override name = "ConfigError";
}
