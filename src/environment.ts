/** The process's environment. Which variables mean what is in config.ts and cli/command-settings.ts. */
export function environment(): Record<string, string | undefined> {
  return process.env;
}
