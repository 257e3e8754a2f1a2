/** Log interface of the client; a pino logger fits. The fields never hold a token. */
export interface Logger {
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}

const ignore = () => {};

/** A logger without output. */
export const silentLogger: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };
