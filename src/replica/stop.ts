/** How a replica stops: it takes nothing new, hands its devices on, writes what waits, and closes, each within a stated time. */
import { within } from "../abort.ts";
import type { HealthState } from "../server/http/health.ts";
import type { Port } from "../server/http/port.ts";
import type { Foundation } from "./foundation.ts";
import type { Work } from "./work.ts";

/** Stops once, however often it is asked; `closed` resolves when it has stopped. */
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
