/** A daemon in the test's process that is connected to its server. */
import { type DaemonOptions, Os, parseConfig, runDaemon } from "@pinion/client";

export type ConnectedDaemon = { stop(): Promise<void> };

/** Resolves when the daemon is connected. `config`: the text of its `device.toml`. */
export async function connectDaemon(
  options: Pick<DaemonOptions, "url" | "token" | "stateDir" | "timing"> & { config: string },
): Promise<ConnectedDaemon> {
  const connected = Promise.withResolvers<void>();
  const stopping = new AbortController();
  const daemon = runDaemon({
    ...options,
    config: parseConfig(options.config),
    signal: stopping.signal,
    os: Os.LINUX,
    env: { PATH: process.env.PATH },
    onEvent: ({ type }) => {
      if (type === "connected") connected.resolve();
    },
  });
  daemon.catch(() => {});
  await connected.promise;
  return {
    async stop() {
      stopping.abort();
      await daemon.catch(() => {});
    },
  };
}
