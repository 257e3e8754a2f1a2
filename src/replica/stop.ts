/**
 * Stop of a replica: refuse new work, hand the devices on, write pending data, close; each step has
 * a time limit.
 */
import type { HealthState } from "../server/http/health.ts";
import type { Port } from "../server/http/port/port.ts";
import { within } from "../time/abort.ts";
import type { Foundation } from "./foundation.ts";
import type { Work } from "./work.ts";

/** Stops once, for any number of calls; `closed` resolves after the stop. */
export function createStop(
  { config, log, opened }: Foundation,
  { hub }: Pick<Work, "hub">,
  own: { port: Port; health: HealthState; stopping: AbortController; onStop: () => void },
): { stop: () => Promise<void>; closed: Promise<void> } {
  const { promise: closed, resolve: resolveClosed } = Promise.withResolvers<void>();
  const { port } = own;

  async function stop(): Promise<void> {
    own.onStop();
    log.info("the replica stops");
    own.health.setServing(false);
    port.drain();
    await hub.drain(config.shutdownMs / 2);
    own.stopping.abort();
    await port.close(config.shutdownMs / 4);
    const disposed = opened.disposeAsync().then(() => true);
    if ((await within(disposed, config.shutdownMs / 4)) !== true) {
      log.warn("the replica did not close in time");
    }
    log.info("the replica has stopped");
    resolveClosed();
  }

  let stopped: Promise<void> | undefined;
  return {
    closed,
    stop() {
      stopped ??= stop();
      return stopped;
    },
  };
}
