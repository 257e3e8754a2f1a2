/**
 * A replica, built from storage, access, work, loops and rpc, in this order. Each builder opens its
 * part and defers its closing; this file adds the order of start and stop.
 */
import type { ReplicaConfig } from "../config.ts";
import { requireRules } from "../server/access/rules.ts";
import { HealthState } from "../server/http/health.ts";
import type { LastLine } from "../server/http/port/last-line.ts";
import { migrate } from "../store/pg/migrate.ts";
import { createLogger, type Logger } from "../telemetry/log.ts";
import { newId } from "../values/ids.ts";
import { buildAccess } from "./access.ts";
import { type Foundation, layFoundation } from "./foundation.ts";
import { startLoops } from "./loops.ts";
import { buildPlatforms } from "./platforms.ts";
import { openReplicaPort } from "./port.ts";
import { announceReplica, observe, openCrowd, prepare } from "./prepare.ts";
import { services } from "./rpc.ts";
import { createStop } from "./stop.ts";
import { openStorage } from "./storage.ts";
import { buildWork } from "./work.ts";

/** A running replica. */
export type Replica = {
  /** Address for access from this machine. */
  url: string;
  port: number;
  replicaId: string;
  /** The token of the first start; only for an empty database, and only in this field. */
  bootstrapToken: string | undefined;
  /** Drains the devices, writes pending data and closes, within the configured time. Idempotent. */
  stop(): Promise<void>;
  /** Resolves after the stop. */
  closed: Promise<void>;
  /**
   * Handles an uncaught error of the process: ends the error's request, counts and logs the error.
   */
  uncaught: LastLine["uncaught"];
};

export type StartOptions = {
  log?: Logger;
  /** Stores the first start's token for people; called before the commit. */
  keepBootstrapToken?: (token: string) => void;
  /** Told of the number of runs and turns that ended together, after their commit. */
  onEnds?: (count: number) => void;
  /**
   * Leaves the plans of statements to the first run: a start that is short of time, as in tests.
   */
  isCold?: boolean;
};

/** Starts a replica. Rejects with an error and its remedy. */
export async function startReplica(config: ReplicaConfig, options: StartOptions = {}): Promise<Replica> {
  const replicaId = newId();
  const log = (options.log ?? createLogger({ name: "pinion", level: config.logLevel })).child({ replicaId });
  requireRules(services);
  await migrate(config.directDatabaseUrl, log);
  const opened = new AsyncDisposableStack();
  try {
    const foundation = await layFoundation({ config, replicaId, log, opened });
    return await build(foundation, options);
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

async function build(foundation: Foundation, options: StartOptions): Promise<Replica> {
  const { replicaId, log } = foundation;
  const storage = await openStorage(foundation, { keepBootstrapToken: options.keepBootstrapToken });
  const { judge, retained } = await prepare(foundation, storage, options);
  const replica = await announceReplica(foundation, storage);

  const stopping = new AbortController();
  let isStopping = false;
  const health = new HealthState();
  const access = buildAccess(foundation, storage);
  const work = await buildWork(foundation, storage, access);
  const { onEnds = () => undefined } = options;
  work.publisher.subscribe({
    settled: (runs) => onEnds(runs.length),
    turnsEnded: (turns) => onEnds(turns.length),
  });
  const platforms = buildPlatforms(foundation, storage, access, work);
  const own = { health, replica, judge, retained, platforms, isStopping: () => isStopping };
  const { bulks, materializer, deliverer } = startLoops(foundation, storage, access, work, own);
  const crowd = openCrowd(foundation);
  observe(foundation, storage, work, { health, crowd, judge });
  const port = await openReplicaPort(foundation, storage, access, work, {
    ...{ health, crowd, platforms, shutdownSignal: stopping.signal },
    poke: () => materializer.poke(),
    onDeliveries: () => deliverer.poke(),
    pokeBulks: () => bulks.poke(),
  });
  replica.address = port.url;
  health.setServing(true);
  log.info({ url: port.url }, "the replica serves");
  const onStop = () => {
    isStopping = true;
  };
  return {
    ...{ url: port.url, port: port.port, replicaId, bootstrapToken: storage.bootstrapToken },
    uncaught: foundation.lastLine.uncaught,
    ...createStop(foundation, work, { port, health, stopping, onStop }),
  };
}
