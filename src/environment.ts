/**
 * The process's environment. config.ts and cli/command-settings.ts have the meanings of the
 * variables.
 */
export function environment(): Record<string, string | undefined> {
  return process.env;
}
