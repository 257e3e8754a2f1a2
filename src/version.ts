import { build } from "./build.ts";

/** The version of the command, and of the daemon that it runs. */
export function version(): string {
  return build.version;
}
