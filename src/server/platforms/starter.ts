import { checkPlatform } from "./kinds.ts";

/** A platform with its secrets open. Lives no longer than its start. */
export type StartablePlatform = {
  orgId: string;
  stableId: string;
  agentId: string;
  kind: string;
  config: Readonly<Record<string, string>>;
  secrets: Readonly<Record<string, string>>;
  epoch: number;
};

/** Who runs platforms. Both functions are called on whatever replica, and may be called again for the same epoch. */
export interface PlatformStarter {
  /**
   * Starts the platform in place of what an earlier epoch started, and resolves once it runs. Rejects if it does not;
   * the error's message is shown to people. Once the signal has aborted, nothing of it may stay.
   */
  start(platform: StartablePlatform, signal: AbortSignal): Promise<void>;
  /** Ends what was started under this epoch or an earlier one, if anything was. */
  stop(platform: { orgId: string; stableId: string; epoch: number }): Promise<void>;
}

/**
 * The starter as long as there is no chat gateway: a platform runs if it could, that is if its kind is known and what
 * the kind needs is there and open. Its state is its row.
 */
export function createConfigStarter(): PlatformStarter {
  return {
    async start({ kind, config, secrets }) {
      checkPlatform({ kind, config, secretNames: Object.keys(secrets) });
    },
    async stop() {},
  };
}
