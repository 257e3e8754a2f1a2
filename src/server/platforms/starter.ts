/** A platform with its secrets decrypted. Exists only during the start. */
export type StartablePlatform = {
  orgId: string;
  stableId: string;
  agentId: string;
  kind: string;
  config: Readonly<Record<string, string>>;
  secrets: Readonly<Record<string, string>>;
  epoch: number;
};

/**
 * Runs platforms. Any replica may call both functions, and may repeat a call for the same epoch.
 */
export interface PlatformStarter {
  /**
   * Starts the platform in place of the program that an earlier epoch started, and resolves once
   * the platform runs. Rejects if the start fails; people see the error's message. After the signal
   * has aborted, nothing may stay running.
   */
  start(platform: StartablePlatform, signal: AbortSignal): Promise<void>;
  /** Stops the program started under the given epoch or an earlier epoch, if any. */
  stop(platform: { orgId: string; stableId: string; epoch: number }): Promise<void>;
}
